/* Maps of maps with initialisers, used by a program. */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_MAP_TYPE_HASH_OF_MAPS 13

typedef unsigned int __u32;
typedef unsigned long long __u64;

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

char LICENSE[] SEC("license") = "GPL";

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
};
struct inner inner_a SEC(".maps"), inner_b SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &inner_b, [3] = &inner_a } };
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} hashed SEC(".maps") = { .values = { [1] = &inner_a } };

static int count(void *outer_map, __u32 slot)
{
	__u32 one = 1;
	void *map = bpf_map_lookup_elem(outer_map, &slot);
	__u64 *value = map ? bpf_map_lookup_elem(map, &one) : 0;

	if (!value)
		return 0;
	return ++*value;
}

SEC("raw_tp/sched_switch")
int use_inner(void *ctx)
{
	return count(&outer, 0) + 10 * count(&outer, 3) + 100 * count(&hashed, 1) + 1000 * count(&outer, 2);
}
