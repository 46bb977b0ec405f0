"""What runs offline."""
