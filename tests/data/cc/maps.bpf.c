/* A map of each shape, for maps as Python has them (test_python.py). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

enum color { RED, GREEN = 7 };

struct place {
	__u32 pid;
	__s32 cpu;
};

struct event {
	__u64 when;
	__u32 pid;
	char comm[16];
};

struct note {
	__u16 number;
	bool last;
};

struct cell {
	enum color color;
	char name[12];
	__u16 slots[4];
	struct place inner;
};

struct flags {
	__u32 a : 3;
	__u32 b : 5;
};

#define MAP(name, kind, key_type, value_type)                                                                                    \
	struct {                                                                                                                 \
		__uint(type, BPF_MAP_TYPE_##kind);                                                                               \
		__uint(max_entries, 64);                                                                                         \
		__type(key, key_type);                                                                                           \
		__type(value, value_type);                                                                                       \
	} name SEC(".maps")

typedef char word[8];

MAP(counts, HASH, __u32, __u64);
MAP(signed_counts, ARRAY, __u32, __s32);
MAP(by_place, HASH, struct place, struct cell);
MAP(by_name, HASH, word, bool);
MAP(by_cpu, PERCPU_HASH, __u32, __u64);
MAP(cells_by_cpu, PERCPU_ARRAY, __u32, struct place);
MAP(bits, ARRAY, __u32, struct flags);

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 8);
	__uint(value_size, 4);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} odd SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} samples SEC(".maps");

struct event last;
struct note last_note;
struct place last_place;

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->when = bpf_ktime_get_ns();
	event->pid = next->pid;
	__builtin_memcpy(event->comm, next->comm, sizeof(event->comm));
	bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU, event, sizeof(*event));
	bpf_ringbuf_submit(event, 0);
	bpf_ringbuf_output(&odd, &last, 5, 0);
	last_place.pid = next->pid;
	bpf_ringbuf_output(&places, &last_place, sizeof(last_place), 0);
	return 0;
}
