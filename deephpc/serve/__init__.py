"""What is known of DEEPaaS and its modules: what they declare, which arguments they take."""
