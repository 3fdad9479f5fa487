/* One program with everything that a replay can show: records, lines of the trace pipe, per-CPU structs, enums, globals. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

enum kind { VOLUNTARY, PREEMPTED };

struct event {
	__u64 time;
	enum kind kind;
	__u32 pid;
	char comm[16];
};

struct per_cpu {
	__u64 switches;
	struct { __u32 low; __s32 minus; } nested;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, enum kind);
	__type(value, struct per_cpu);
} kinds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} few SEC(".maps");

__u64 total;
struct event last;

SEC("raw_tp/sched_switch")
int outputs(__u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	enum kind kind = ctx[0] & 1 ? PREEMPTED : VOLUNTARY;
	struct per_cpu zero = {}, *sum;
	struct event *event;
	__u32 slot = 3, *count;

	total++;
	sum = bpf_map_lookup_elem(&kinds, &kind);
	if (!sum) {
		zero.nested.minus = -1;
		bpf_map_update_elem(&kinds, &kind, &zero, BPF_ANY);
		sum = bpf_map_lookup_elem(&kinds, &kind);
	}
	if (sum)
		sum->switches++;
	count = bpf_map_lookup_elem(&few, &slot);
	if (count)
		*count = 7;
	if (total <= 3) {
		static const char format[] = "switch %d\n";

		bpf_trace_printk(format, sizeof(format), (int)total);
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	event->kind = kind;
	event->pid = BPF_CORE_READ(prev, pid);
	BPF_CORE_READ_STR_INTO(&event->comm, prev, comm);
	last = *event;
	bpf_ringbuf_submit(event, 0);
	return 0;
}
