"""The synthetic kernel address space: one reserved arena, typed objects laid out by BTF, checked reads."""
