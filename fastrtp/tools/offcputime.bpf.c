/* How long each thread was off the CPU, by the state that it left it in. */
#include "vmlinux.h"
#include "tools.bpf.h"

const volatile __u64 min_ns = 0;

struct left {
	__u64 when;
	__u32 state;
	__u32 pad;
};

struct off_key {
	__u32 pid;
	__u32 state; /* TASK_*: 0 runnable, 1 interruptible, 2 uninterruptible, ... */
	char comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, struct left);
} left SEC(".maps");

HISTS(answer, struct off_key);

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u64 now = bpf_ktime_get_ns(), took;
	struct left leaves = { .when = now };
	struct off_key key = {};
	struct left *since;
	struct hist *hist;
	__u32 pid = prev->pid;

	if (pid && is_wanted(pid)) {
		leaves.state = prev->__state & 0xff;
		bpf_map_update_elem(&left, &pid, &leaves, BPF_ANY);
	}
	pid = next->pid;
	since = bpf_map_lookup_elem(&left, &pid);
	if (!since)
		return 0;
	took = now - since->when;
	key.state = since->state;
	bpf_map_delete_elem(&left, &pid);
	if (took < min_ns)
		return 0;
	key.pid = pid;
	BPF_CORE_READ_STR_INTO(&key.comm, next, comm);
	hist = element(&answer, &key, &no_hist);
	if (hist)
		count_in(hist, took);
	return 0;
}
