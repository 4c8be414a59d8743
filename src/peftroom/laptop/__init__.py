"""What lies in a bundle beside the wheels: an installer that needs Python alone."""
