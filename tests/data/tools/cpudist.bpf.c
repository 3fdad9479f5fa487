/* On-CPU time of tasks as histograms in a per-CPU array that is filled by pid modulo; a summary by bpf_for_each_map_elem. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include "tools.h"

char LICENSE[] SEC("license") = "GPL";

#define BUCKETS 64

const volatile bool offcpu = false;

__u64 longest_ns, switches;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct hist);
} hists SEC(".maps");

struct sum {
	__u64 total;
};

static void store_start(__u32 pid, __u64 now)
{
	bpf_map_update_elem(&start, &pid, &now, BPF_ANY);
}

static __noinline void update_hist(__u32 pid, __u64 now)
{
	__u64 *since = bpf_map_lookup_elem(&start, &pid), delta;
	__u32 bucket = pid % BUCKETS;
	struct hist *hist;

	if (!since || now < *since)
		return;
	delta = now - *since;
	hist = bpf_map_lookup_elem(&hists, &bucket);
	if (!hist)
		return;
	count_in(hist, delta / 1000);
	if (delta > longest_ns)
		longest_ns = delta;
}

SEC("tp_btf/sched_switch")
int switched(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	__u64 now = bpf_ktime_get_ns();

	__sync_fetch_and_add(&switches, 1);
	if (offcpu) {
		store_start(prev->pid, now);
		update_hist(next->pid, now);
	} else {
		update_hist(prev->pid, now);
		store_start(next->pid, now);
	}
	return 0;
}

static long add_hist(void *map, __u32 *key, struct hist *hist, struct sum *sum)
{
	for (int i = 0; i < SLOTS; i++)
		sum->total += hist->slots[i];
	return 0;
}

/* How many times were counted on the CPU that this runs on: the result, and in `counted`. */
__u64 counted;

SEC("raw_tp/sched_process_exit")
int summary(__u64 *ctx)
{
	struct sum sum = {};

	bpf_for_each_map_elem(&hists, add_hist, &sum, 0);
	counted = sum.total;
	return sum.total;
}
