/* The context-switch matrix: how often each task gave its CPU to each other one. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define TASK_COMM_LEN 16

char LICENSE[] SEC("license") = "GPL";

struct pair {
	__u32 prev_pid;
	__u32 next_pid;
	char prev_comm[TASK_COMM_LEN];
	char next_comm[TASK_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pair);
	__type(value, __u64);
} switches SEC(".maps");

SEC("raw_tp/sched_switch")
int on_switch(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct pair pair = {};
	__u64 one = 1, *count;

	pair.prev_pid = BPF_CORE_READ(prev, pid);
	pair.next_pid = BPF_CORE_READ(next, pid);
	BPF_CORE_READ_STR_INTO(&pair.prev_comm, prev, comm);
	BPF_CORE_READ_STR_INTO(&pair.next_comm, next, comm);
	count = bpf_map_lookup_elem(&switches, &pair);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&switches, &pair, &one, BPF_NOEXIST);
	return 0;
}
