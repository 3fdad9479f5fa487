"""Types of a byte of stack. Kernel: include/linux/bpf_verifier.h:enum bpf_stack_slot_type."""

STACK_INVALID, STACK_SPILL, STACK_MISC, STACK_ZERO, STACK_DYNPTR, STACK_ITER = range(6)
SLOT_CHARS = "?rm0di"
