"""The masking network of RTS: its layers, and its weights in a file."""
