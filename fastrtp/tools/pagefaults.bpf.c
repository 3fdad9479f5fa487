/* Page faults of user space, by thread and by what was tried. */
#include "vmlinux.h"
#include "tools.bpf.h"

#define PF_PROT 1
#define PF_WRITE 2
#define PF_INSTR 16

struct fault {
	__u32 pid;
	__u32 access; /* 0 read, 1 write, 2 instruction */
	char comm[TASK_COMM_LEN];
};

struct faults {
	__u64 count;
	__u64 protection; /* the page was there, and the access not allowed */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct fault);
	__type(value, struct faults);
} answer SEC(".maps");

SEC("tp_btf/page_fault_user")
int BPF_PROG(on_fault, unsigned long address, struct pt_regs *regs, unsigned long error_code)
{
	struct faults zero = {}, *faults;
	struct fault fault = {};

	fault.pid = bpf_get_current_pid_tgid();
	if (!is_wanted(fault.pid))
		return 0;
	fault.access = error_code & PF_INSTR ? 2 : error_code & PF_WRITE ? 1 : 0;
	bpf_get_current_comm(&fault.comm, sizeof(fault.comm));
	faults = element(&answer, &fault, &zero);
	if (!faults)
		return 0;
	__sync_fetch_and_add(&faults->count, 1);
	__sync_fetch_and_add(&faults->protection, error_code & PF_PROT);
	return 0;
}
