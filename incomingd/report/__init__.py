"""Tells: status files, health, the service manager. All of it is derived and can be made anew."""
