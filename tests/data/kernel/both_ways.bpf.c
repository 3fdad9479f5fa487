/* The same counts twice: raw_tp with CO-RE reads, and tp_btf with direct loads. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

struct transition {
	__u32 prev, next, prio, parent;
	char comm[16];
};

#define COUNTS(name) struct { \
	__uint(type, BPF_MAP_TYPE_HASH); \
	__uint(max_entries, 16384); \
	__type(key, struct transition); \
	__type(value, __u64); \
} name SEC(".maps")

COUNTS(raw);
COUNTS(btf);
COUNTS(mixed);

static __always_inline void count(void *map, struct transition *key)
{
	__u64 one = 1, *value = bpf_map_lookup_elem(map, key);

	if (value)
		*value += 1;
	else
		bpf_map_update_elem(map, key, &one, BPF_ANY);
}

SEC("raw_tp/sched_switch")
int by_raw(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct task_struct *parent = BPF_CORE_READ(next, real_parent);
	struct transition key = { .prev = BPF_CORE_READ(prev, pid), .next = BPF_CORE_READ(next, pid), .prio = BPF_CORE_READ(next, prio),
			   .parent = BPF_CORE_READ(parent, pid) };

	BPF_CORE_READ_STR_INTO(&key.comm, next, comm);
	count(&raw, &key);
	return 0;
}

SEC("tp_btf/sched_switch")
int by_btf(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct transition key = { .prev = prev->pid, .next = next->pid, .prio = next->prio, .parent = next->real_parent->pid };

	bpf_probe_read_kernel_str(&key.comm, sizeof(key.comm), next->comm);
	count(&btf, &key);
	return 0;
}

/* CO-RE reads of the same objects in a tp_btf program */
SEC("tp_btf/sched_switch")
int by_both(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	struct transition key = { .prev = prev->pid, .next = BPF_CORE_READ(next, pid), .prio = next->prio };
	struct task_struct *parent = BPF_CORE_READ(next, real_parent);

	key.parent = BPF_CORE_READ(parent, pid);
	BPF_CORE_READ_STR_INTO(&key.comm, next, comm);
	count(&mixed, &key);
	return 0;
}

/* pi_task may be NULL */
__u64 boosted, plain;

SEC("tp_btf/sched_pi_setprio")
int nullable(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0], *pi_task = (struct task_struct *)ctx[1];

	if (pi_task)
		boosted += pi_task->pid;
	else
		plain += task->pid;
	return 0;
}
