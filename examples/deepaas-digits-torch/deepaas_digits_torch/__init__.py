"""Reads handwritten digits with PyTorch, and learns to on one node or many: a module with the DEEPaaS API."""
