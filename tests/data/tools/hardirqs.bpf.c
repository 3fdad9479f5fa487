/* Interrupt handlers by name: how often, how long, a histogram. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "tools.h"

char LICENSE[] SEC("license") = "GPL";

const volatile bool do_count = false;

struct irq_key {
	char name[32];
};

struct info {
	__u64 count;
	__u64 time;
	struct hist hist;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct irq_key);
	__type(value, struct info);
} infos SEC(".maps");

static struct info zero;

static struct info *info_of(struct irqaction *action)
{
	struct irq_key key = {};
	struct info *info;

	bpf_probe_read_kernel_str(&key.name, sizeof(key.name), BPF_CORE_READ(action, name));
	info = bpf_map_lookup_elem(&infos, &key);
	if (!info) {
		bpf_map_update_elem(&infos, &key, &zero, BPF_NOEXIST);
		info = bpf_map_lookup_elem(&infos, &key);
	}
	return info;
}

SEC("raw_tp/irq_handler_entry")
int entry(__u64 *ctx)
{
	__u32 key = 0;
	__u64 now;
	struct info *info;

	if (do_count) {
		info = info_of((struct irqaction *)ctx[1]);
		if (info)
			info->count += 1;
		return 0;
	}
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&start, &key, &now, BPF_ANY);
	return 0;
}

SEC("raw_tp/irq_handler_exit")
int exit_handler(__u64 *ctx)
{
	__u32 key = 0;
	__u64 *since = bpf_map_lookup_elem(&start, &key), delta;
	struct info *info;

	if (do_count || !since || !*since)
		return 0;
	delta = bpf_ktime_get_ns() - *since;
	info = info_of((struct irqaction *)ctx[1]);
	if (!info)
		return 0;
	info->count += 1;
	info->time += delta;
	count_in(&info->hist, delta / 1000);
	return 0;
}
