"""This machine: its folders, what it is, and progress on its terminal."""
