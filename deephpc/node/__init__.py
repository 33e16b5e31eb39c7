"""What runs inside a job on a compute node: small, few imports, survives being killed."""
