"""What runs leave behind, on this machine and with the project."""
