"""Reads handwritten digits: a small module with the DEEPaaS API."""
