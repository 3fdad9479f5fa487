/* How long tasks slept, by who woke them: (name of the waker, name of the woken). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define TASK_COMM_LEN 16

char LICENSE[] SEC("license") = "GPL";

const volatile __u64 min_block_ns = 1;

struct pair_key {
	char target[TASK_COMM_LEN];
	__u32 waker_pid;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct pair_key);
	__type(value, __u64);
} slept SEC(".maps");

SEC("raw_tp/sched_switch")
int switched(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	__u32 pid = BPF_CORE_READ(prev, pid);
	__u64 now;

	if (!pid || !BPF_CORE_READ(prev, __state))
		return 0;
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &pid, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp/sched_wakeup")
int woken(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	__u32 pid = BPF_CORE_READ(task, pid);
	__u64 *since = bpf_map_lookup_elem(&start, &pid), *total, delta;
	struct pair_key key = {};

	if (!since)
		return 0;
	delta = bpf_ktime_get_ns() - *since;
	bpf_map_delete_elem(&start, &pid);
	if (delta < min_block_ns)
		return 0;
	BPF_CORE_READ_STR_INTO(&key.target, task, comm);
	key.waker_pid = bpf_get_current_pid_tgid();
	total = bpf_map_lookup_elem(&slept, &key);
	if (total)
		__sync_fetch_and_add(total, delta);
	else
		bpf_map_update_elem(&slept, &key, &delta, BPF_NOEXIST);
	return 0;
}
