"""BPF helpers: the table (number, prototype, who may call it) and the native bodies (`*_native.py`)."""
