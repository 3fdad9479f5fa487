/* What several CPUs may do to one map at a time, one program each. ctx: { u64 key, u64 value, u32 flags }. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define MAP(name, kind, entries, value_type)                                                                                     \
	struct {                                                                                                                 \
		__uint(type, kind);                                                                                              \
		__uint(max_entries, entries);                                                                                    \
		__type(key, __u32);                                                                                              \
		__type(value, value_type);                                                                                       \
	} name SEC(".maps")

struct locked {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 a, b;
};

struct record {
	__u32 cpu, key;
	__u64 value, check;
};

struct wide {
	__u64 key, other;
	__u32 again;
};

struct note {
	__u64 value;
	__u32 cpu, size;
	__u64 check[30];
};

MAP(counts, BPF_MAP_TYPE_HASH, 1024, __u64);
MAP(lru_counts, BPF_MAP_TYPE_LRU_HASH, 1024, __u64);
MAP(percpu_counts, BPF_MAP_TYPE_PERCPU_HASH, 1024, __u64);
MAP(lru_percpu_counts, BPF_MAP_TYPE_LRU_PERCPU_HASH, 1024, __u64);
MAP(array_counts, BPF_MAP_TYPE_ARRAY, 256, __u64);
MAP(percpu_array_counts, BPF_MAP_TYPE_PERCPU_ARRAY, 256, __u64);
MAP(churned, BPF_MAP_TYPE_HASH, 64, __u64);
MAP(lru_churned, BPF_MAP_TYPE_LRU_HASH, 64, __u64);
MAP(percpu_churned, BPF_MAP_TYPE_PERCPU_HASH, 64, __u64);
MAP(guarded, BPF_MAP_TYPE_ARRAY, 8, struct locked);
MAP(guarded_hash, BPF_MAP_TYPE_HASH, 8, struct locked);
MAP(words, BPF_MAP_TYPE_ARRAY, 4, struct record);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct wide);
	__type(value, __u64);
} wide_churned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(void *));
} jumps SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
};

struct inner inner_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner_counts } };

__u64 total, torn, failed, landed, seen;

/* A value that says which key it belongs to, and whether it is whole. */
static __always_inline __u64 mark(__u32 key)
{
	return (__u64)key << 32 | (__u32)~key;
}

#define COUNT(prog, map)                                                                                                         \
	SEC("raw_tp")                                                                                                            \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[0];                                                                                              \
		__u64 *count = bpf_map_lookup_elem(&map, &key), zero = 0;                                                        \
                                                                                                                                 \
		if (!count) {                                                                                                    \
			bpf_map_update_elem(&map, &key, &zero, BPF_NOEXIST);                                                     \
			count = bpf_map_lookup_elem(&map, &key);                                                                 \
		}                                                                                                                \
		if (count)                                                                                                       \
			__sync_fetch_and_add(count, 1);                                                                          \
		else                                                                                                             \
			__sync_fetch_and_add(&failed, 1);                                                                        \
		return 0;                                                                                                        \
	}

COUNT(hash, counts)
COUNT(lru_hash, lru_counts)
COUNT(array, array_counts)

#define PERCPU_COUNT(prog, map)                                                                                                  \
	SEC("raw_tp")                                                                                                            \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[0];                                                                                              \
		__u64 *count = bpf_map_lookup_elem(&map, &key), zero = 0;                                                        \
                                                                                                                                 \
		if (!count) {                                                                                                    \
			bpf_map_update_elem(&map, &key, &zero, BPF_NOEXIST);                                                     \
			count = bpf_map_lookup_elem(&map, &key);                                                                 \
		}                                                                                                                \
		if (count)                                                                                                       \
			*count += 1;                                                                                             \
		else                                                                                                             \
			__sync_fetch_and_add(&failed, 1);                                                                        \
		return 0;                                                                                                        \
	}

PERCPU_COUNT(percpu_hash, percpu_counts)
PERCPU_COUNT(lru_percpu_hash, lru_percpu_counts)
PERCPU_COUNT(percpu_array, percpu_array_counts)

SEC("raw_tp")
int global(__u64 *ctx)
{
	__sync_fetch_and_add(&total, 1);
	return 0;
}

/* Insert, replace, delete and look up; a value that is looked up must be whole, whosever it is. */
#define CHURN(prog, map)                                                                                                         \
	SEC("raw_tp")                                                                                                            \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[0], what = ctx[1] & 3;                                                                           \
		__u64 value = mark(key), *found;                                                                                 \
                                                                                                                                 \
		if (what == 0) {                                                                                                 \
			bpf_map_delete_elem(&map, &key);                                                                         \
		} else if (what == 1) {                                                                                          \
			found = bpf_map_lookup_elem(&map, &key);                                                                 \
			if (found) {                                                                                             \
				value = *(volatile __u64 *)found;                                                                \
				if ((__u32)~value != value >> 32)                                                                \
					__sync_fetch_and_add(&torn, 1);                                                          \
			}                                                                                                        \
		} else {                                                                                                         \
			bpf_map_update_elem(&map, &key, &value, what == 2 ? BPF_ANY : BPF_NOEXIST);                              \
		}                                                                                                                \
		return 0;                                                                                                        \
	}

CHURN(churn, churned)
CHURN(lru_churn, lru_churned)

/* The same with keys of 24 bytes, in which all of a key's bytes say which it is. */
SEC("raw_tp")
int wide_churn(__u64 *ctx)
{
	struct wide key = { .key = ctx[0], .other = ~ctx[0], .again = ctx[0] };
	__u32 what = ctx[1] & 3;
	__u64 value = mark(ctx[0]), *found;

	if (what == 0) {
		bpf_map_delete_elem(&wide_churned, &key);
	} else if (what == 1) {
		found = bpf_map_lookup_elem(&wide_churned, &key);
		if (found) {
			value = *(volatile __u64 *)found;
			if ((__u32)~value != value >> 32)
				__sync_fetch_and_add(&torn, 1);
		}
	} else {
		bpf_map_update_elem(&wide_churned, &key, &value, what == 2 ? BPF_ANY : BPF_NOEXIST);
	}
	return 0;
}

/* Each CPU's value is its own: in a new element it is 0 or what this CPU wrote. */
SEC("raw_tp")
int percpu_churn(__u64 *ctx)
{
	__u32 key = ctx[0];
	__u64 value = mark(key), *found;

	if (ctx[1] & 1) {
		bpf_map_update_elem(&percpu_churned, &key, &value, BPF_ANY);
	} else {
		found = bpf_map_lookup_elem(&percpu_churned, &key);
		value = found ? *(volatile __u64 *)found : 0;
		if (value && (__u32)~value != value >> 32)
			__sync_fetch_and_add(&torn, 1);
		bpf_map_delete_elem(&percpu_churned, &key);
	}
	return 0;
}

static long visit(void *map, __u32 *key, __u64 *value, void *data)
{
	__u64 found = *(volatile __u64 *)value;

	if ((__u32)~found != found >> 32)
		__sync_fetch_and_add(&torn, 1);
	return 0;
}

SEC("raw_tp")
int walk(__u64 *ctx)
{
	if (!(ctx[1] & 255))
		__sync_fetch_and_add(&seen, bpf_for_each_map_elem(&churned, visit, 0, 0));
	return 0;
}

/* Two numbers that are equal wherever the lock is held. Only tp_btf programs may have locks; ctx: { u64 regs, u64 id }. */
#define GUARD(prog, map)                                                                                                         \
	SEC("tp_btf/sys_enter")                                                                                                          \
	int prog(__u64 *ctx)                                                                                                     \
	{                                                                                                                        \
		__u32 key = ctx[1] & 7;                                                                                          \
		struct locked *value = bpf_map_lookup_elem(&map, &key);                                                          \
		int wrong;                                                                                                       \
                                                                                                                                 \
		if (!value)                                                                                                      \
			return 0;                                                                                                \
		bpf_spin_lock(&value->lock);                                                                                     \
		wrong = value->a != value->b;                                                                                    \
		value->a += 1;                                                                                                   \
		value->b += 1;                                                                                                   \
		bpf_spin_unlock(&value->lock);                                                                                   \
		if (wrong)                                                                                                       \
			__sync_fetch_and_add(&torn, 1);                                                                          \
		return 0;                                                                                                        \
	}

GUARD(guard, guarded)
GUARD(guard_hash, guarded_hash)

/* A whole value put in under its lock, and looked at under it. */
SEC("tp_btf/sys_enter")
int guard_update(__u64 *ctx)
{
	struct locked next = { .a = ctx[1] >> 3, .b = ctx[1] >> 3 }, *value;
	__u32 key = ctx[1] & 7;
	int wrong;

	bpf_map_update_elem(&guarded, &key, &next, BPF_F_LOCK);
	value = bpf_map_lookup_elem(&guarded, &key);
	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	wrong = value->a != value->b;
	bpf_spin_unlock(&value->lock);
	if (wrong)
		__sync_fetch_and_add(&torn, 1);
	return 0;
}

/* Words of a value that is replaced are never seen half. */
SEC("raw_tp")
int replace(__u64 *ctx)
{
	__u32 key = ctx[0] & 3;
	__u64 word = mark(ctx[1]);
	struct record next = { .cpu = bpf_get_smp_processor_id(), .key = ~bpf_get_smp_processor_id(), .value = word, .check = word };
	struct record *found = bpf_map_lookup_elem(&words, &key);

	if (found) {
		word = *(volatile __u64 *)&found->value;
		if (word && (__u32)~word != word >> 32)
			__sync_fetch_and_add(&torn, 1);
	}
	bpf_map_update_elem(&words, &key, &next, BPF_ANY);
	return 0;
}

static __always_inline void fill(struct record *record, __u64 *ctx)
{
	record->cpu = bpf_get_smp_processor_id();
	record->key = ctx[0];
	record->value = ctx[1];
	record->check = ~ctx[1];
}

SEC("raw_tp")
int ring_reserve(__u64 *ctx)
{
	struct record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record) {
		__sync_fetch_and_add(&failed, 1);
		return 0;
	}
	fill(record, ctx);
	if (ctx[1] % 5 == 0)
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("raw_tp")
int ring_output(__u64 *ctx)
{
	struct record record;

	fill(&record, ctx);
	if (bpf_ringbuf_output(&ring, &record, sizeof(record), 0))
		__sync_fetch_and_add(&failed, 1);
	return 0;
}

/* Records of 24 to 248 bytes into a ring of a page. */
SEC("raw_tp")
int ring_sizes(__u64 *ctx)
{
	__u32 size = 24 + (ctx[0] & 7) * 32;
	struct note note = { .value = ctx[1], .cpu = bpf_get_smp_processor_id(), .size = size };

	for (int i = 0; i < 29; i++)
		note.check[i] = ~ctx[1];
	if (bpf_ringbuf_output(&small, &note, size, 0))
		__sync_fetch_and_add(&failed, 1);
	return 0;
}

SEC("raw_tp")
int perf_output(__u64 *ctx)
{
	struct record record;

	fill(&record, ctx);
	if (bpf_perf_event_output(ctx, &perf, ctx[0] & 1, &record, sizeof(record)))
		__sync_fetch_and_add(&failed, 1);
	return 0;
}

SEC("raw_tp")
int jump(__u64 *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	__sync_fetch_and_add(&failed, 1);
	return 0;
}

SEC("raw_tp")
int land(__u64 *ctx)
{
	__sync_fetch_and_add(&landed, 1);
	return 0;
}

SEC("raw_tp")
int nested(__u64 *ctx)
{
	__u32 zero = 0, key = ctx[0] & 255;
	void *inner = bpf_map_lookup_elem(&outer, &zero);
	__u64 *count = inner ? bpf_map_lookup_elem(inner, &key) : 0;

	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&failed, 1);
	return 0;
}

SEC("raw_tp")
int print(__u64 *ctx)
{
	static const char fmt[] = "cpu %d value %llu";

	bpf_trace_printk(fmt, sizeof(fmt), bpf_get_smp_processor_id(), ctx[1]);
	return 0;
}
