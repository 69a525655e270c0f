"""The engine: what to learn, how to learn it, and the program that does. It knows no file, screen or module system."""
