/* Time that tasks spend off the CPU, by pid, in a per-CPU hash; how they left it as a pair of global counters. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

const volatile __u64 min_block_ns = 1;
const volatile __u64 max_block_ns = -1;
const volatile bool kernel_threads = true;

__u64 preempted, blocked;

struct off {
	__u64 delta;
	__u64 times;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct off);
} info SEC(".maps");

static bool allow(struct task_struct *task)
{
	return task->pid && (kernel_threads || task->mm);
}

static __noinline int leave(__u32 pid, bool running)
{
	__u64 now = bpf_ktime_get_ns();

	if (running)
		__sync_fetch_and_add(&preempted, 1);
	else
		__sync_fetch_and_add(&blocked, 1);
	bpf_map_update_elem(&start, &pid, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_switch")
int switched(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct off zero = {}, *off;
	__u64 *since, delta;
	__u32 pid;

	if (allow(prev))
		leave(prev->pid, prev->__state == 0);
	pid = next->pid;
	since = bpf_map_lookup_elem(&start, &pid);
	if (!since)
		return 0;
	delta = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&start, &pid);
	if (delta < min_block_ns || delta > max_block_ns)
		return 0;
	off = bpf_map_lookup_elem(&info, &pid);
	if (!off) {
		bpf_map_update_elem(&info, &pid, &zero, BPF_NOEXIST);
		off = bpf_map_lookup_elem(&info, &pid);
		if (!off)
			return 0;
	}
	off->delta += delta;
	off->times++;
	return 0;
}
