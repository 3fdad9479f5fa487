/* Tasks that waited for a CPU for longer than a threshold: a record each, through a ring buffer. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#define TASK_COMM_LEN 16

char LICENSE[] SEC("license") = "GPL";

const volatile __u64 min_us = 100;

struct event {
	char task[TASK_COMM_LEN];
	char prev_task[TASK_COMM_LEN];
	__u64 delta_us;
	__u32 pid;
	__u32 prev_pid;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static int enqueue(__u32 pid)
{
	__u64 now = bpf_ktime_get_ns();

	if (pid)
		bpf_map_update_elem(&start, &pid, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int wakeup(__u64 *ctx)
{
	return enqueue(((struct task_struct *)ctx[0])->pid);
}

SEC("tp_btf/sched_wakeup_new")
int wakeup_new(__u64 *ctx)
{
	return enqueue(((struct task_struct *)ctx[0])->pid);
}

SEC("tp_btf/sched_switch")
int switched(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct event *event;
	__u64 *since, delta_us;
	__u32 pid = next->pid;

	if (!prev->__state)
		enqueue(prev->pid);
	since = bpf_map_lookup_elem(&start, &pid);
	if (!since)
		return 0;
	delta_us = (bpf_ktime_get_ns() - *since) / 1000;
	bpf_map_delete_elem(&start, &pid);
	if (delta_us <= min_us)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->pid = pid;
	event->prev_pid = prev->pid;
	event->delta_us = delta_us;
	bpf_probe_read_kernel_str(event->task, sizeof(event->task), next->comm);
	bpf_probe_read_kernel_str(event->prev_task, sizeof(event->prev_task), prev->comm);
	bpf_ringbuf_submit(event, 0);
	return 0;
}
