/* Time in soft interrupts by vector: counts, nanoseconds and a histogram, in globals, begun per CPU. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "tools.h"

char LICENSE[] SEC("license") = "GPL";

#define NR_VECTORS 10

const volatile bool as_histogram = true;

__u64 counts[NR_VECTORS];
__u64 time[NR_VECTORS];
struct hist hists[NR_VECTORS];

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

static int handle_entry(unsigned int vec)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 key = 0;

	bpf_map_update_elem(&start, &key, &now, BPF_ANY);
	return 0;
}

static int handle_exit(unsigned int nr)
{
	__u32 key = 0;
	__u64 *since, delta, vec = nr;

	asm volatile("" : "+r"(vec)); /* one register is checked and used */
	if (vec >= NR_VECTORS)
		return 0;
	since = bpf_map_lookup_elem(&start, &key);
	if (!since || !*since)
		return 0;
	delta = bpf_ktime_get_ns() - *since;
	__sync_fetch_and_add(&counts[vec], 1);
	__sync_fetch_and_add(&time[vec], delta);
	if (as_histogram)
		count_in(&hists[vec], delta);
	return 0;
}

SEC("tp_btf/softirq_entry")
int btf_entry(__u64 *ctx)
{
	return handle_entry(ctx[0]);
}

SEC("tp_btf/softirq_exit")
int btf_exit(__u64 *ctx)
{
	return handle_exit(ctx[0]);
}

SEC("raw_tp/softirq_entry")
int raw_entry(__u64 *ctx)
{
	return handle_entry(ctx[0]);
}

SEC("raw_tp/softirq_exit")
int raw_exit(__u64 *ctx)
{
	return handle_exit(ctx[0]);
}
