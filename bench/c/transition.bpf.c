/* What a raw tracepoint program commonly does, one program each. ctx: { u64 key, u64 value, u32 flags }. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MAP(name, kind, entries)                                                                                                 \
	struct {                                                                                                                 \
		__uint(type, kind);                                                                                              \
		__uint(max_entries, entries);                                                                                    \
		__type(key, __u32);                                                                                              \
		__type(value, __u64);                                                                                            \
	} name SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, 1024);
MAP(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, 1024);
MAP(hash_1k, BPF_MAP_TYPE_HASH, 1024);
MAP(hash_100k, BPF_MAP_TYPE_HASH, 100000);
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 1024);
MAP(updated, BPF_MAP_TYPE_HASH, 1024);
MAP(lru_1k, BPF_MAP_TYPE_LRU_HASH, 1024);
MAP(lru_full, BPF_MAP_TYPE_LRU_HASH, 512);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ring SEC(".maps");

__u64 total;
__u64 last;

SEC("raw_tp/bench_event")
int empty(__u64 *ctx)
{
	return 0;
}

SEC("raw_tp/bench_event")
int global_count(__u64 *ctx)
{
	__sync_fetch_and_add(&total, 1);
	return 0;
}

#define COUNT(prog, map)                                                                                                         \
	SEC("raw_tp/bench_event")                                                                                                            \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[0];                                                                                              \
		__u64 *count = bpf_map_lookup_elem(&map, &key), one = 1;                                                         \
                                                                                                                                 \
		if (count)                                                                                                       \
			__sync_fetch_and_add(count, 1);                                                                          \
		else                                                                                                             \
			bpf_map_update_elem(&map, &key, &one, BPF_ANY);                                                          \
		return 0;                                                                                                        \
	}

COUNT(array_count, array)
COUNT(hash_count, hash_1k)
COUNT(hash_count_100k, hash_100k)
COUNT(lru_count, lru_1k)
COUNT(lru_evict, lru_full)

#define PERCPU_COUNT(prog, map)                                                                                                  \
	SEC("raw_tp/bench_event")                                                                                                            \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[0];                                                                                              \
		__u64 *count = bpf_map_lookup_elem(&map, &key), one = 1;                                                         \
                                                                                                                                 \
		if (count)                                                                                                       \
			*count += 1;                                                                                             \
		else                                                                                                             \
			bpf_map_update_elem(&map, &key, &one, BPF_ANY);                                                          \
		return 0;                                                                                                        \
	}

PERCPU_COUNT(percpu_array_count, percpu_array)
PERCPU_COUNT(percpu_hash_count, percpu_hash)

SEC("raw_tp/bench_event")
int hash_update(__u64 *ctx)
{
	__u32 key = ctx[0];
	__u64 value = ctx[1];

	bpf_map_update_elem(&updated, &key, &value, BPF_ANY);
	return 0;
}

SEC("raw_tp/bench_event")
int ringbuf_discard(__u64 *ctx)
{
	__u64 *record = bpf_ringbuf_reserve(&ring, 16, 0);

	if (!record)
		return 0;
	record[0] = ctx[0];
	record[1] = ctx[1];
	bpf_ringbuf_discard(record, 0);
	return 0;
}

/* Empty, but for LLVM and the recursion guard: an event might fire while it runs. */
SEC("raw_tp/bench_event")
int guarded(__u64 *ctx)
{
	static const char text[] = "flags";

	if (ctx[2] == 99)
		bpf_trace_printk(text, sizeof(text));
	return 0;
}

struct bits {
	__u64 set[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct bits);
} bits_by_key SEC(".maps");

/* How often each bit of a value is set. Every store might change the context, for all that C knows. */
SEC("raw_tp/bench_event")
int bit_counts(__u64 *ctx)
{
	__u32 key = ctx[0];
	struct bits *bits = bpf_map_lookup_elem(&bits_by_key, &key);

	if (!bits)
		return 0;
	for (int bit = 0; bit < 64; bit++)
		bits->set[bit] += ctx[1] >> bit & 1;
	return 0;
}

const volatile __u64 targ_from = 0, targ_to = ~0ULL;
const volatile __u32 targ_flags = 0;
const volatile bool targ_halves = false;

/* With a tool's settings, none of which are in use. */
SEC("raw_tp/bench_event")
int filtered(__u64 *ctx)
{
	__u32 key = ctx[0];
	__u64 *count;

	if (ctx[1] < targ_from || ctx[1] > targ_to)
		return 0;
	if (targ_flags && !(ctx[2] & targ_flags))
		return 0;
	if (targ_halves)
		key >>= 1;
	count = bpf_map_lookup_elem(&array, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

SEC("raw_tp/bench_event")
int ktime(__u64 *ctx)
{
	last = bpf_ktime_get_ns();
	return 0;
}
