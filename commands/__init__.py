"""The commands of `gan`, one file each; cli.py puts them together."""
