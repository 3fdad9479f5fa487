"""Recorded events, played through the programs that are attached."""
