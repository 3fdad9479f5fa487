// build: -g0
/* An object of old: maps in a `maps` section, no BTF at all. */
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") hash = {1, 4, 8, 16, 0};
struct bpf_map_def SEC("maps") array = {2, 4, 8, 1, 0};
char LICENSE[] SEC("license") = "GPL";
int calls = 3;

static void *(*const lookup)(void *map, const void *key) = (void *(*)(void *, const void *))1;

static __attribute__((noinline)) __u64 read(void *map)
{
	__u32 key = 0;
	__u64 *value = lookup(map, &key);

	return value ? *value : 0;
}

SEC("raw_tracepoint/sched_switch")
int old(void *ctx)
{
	calls++;
	return read(&hash) + read(&array);
}
