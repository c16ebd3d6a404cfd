"""Networks, and the torch-free contracts that training, export and serving share."""
