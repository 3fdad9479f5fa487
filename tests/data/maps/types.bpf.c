// clang -target bpf -O2 -g -mcpu=v3 -c types.bpf.c: programs of test_map_types.py, one or two for each map type.
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

enum { LPM_TRIE = 11, QUEUE = 22, STACK = 23, TASK_STORAGE = 29, BLOOM_FILTER = 30, CGROUP_ARRAY = 8 };
enum { NO_PREALLOC = 1, ZERO_SEED = 64, CREATE = 1 };

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

static void *(*bpf_map_lookup_elem)(void *, const void *) = (void *)1;
static long (*bpf_map_update_elem)(void *, const void *, const void *, __u64) = (void *)2;
static long (*bpf_map_delete_elem)(void *, const void *) = (void *)3;
static long (*bpf_current_task_under_cgroup)(void *, __u32) = (void *)37;
static long (*bpf_map_push_elem)(void *, const void *, __u64) = (void *)87;
static long (*bpf_map_pop_elem)(void *, void *) = (void *)88;
static long (*bpf_map_peek_elem)(void *, void *) = (void *)89;
static void *(*bpf_task_storage_get)(void *, struct task_struct *, void *, __u64) = (void *)156;
static long (*bpf_task_storage_delete)(void *, struct task_struct *) = (void *)157;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;

struct counts {
	__u64 switched_out;
	__u64 switched_in;
};

struct {
	__uint(type, TASK_STORAGE);
	__uint(map_flags, NO_PREALLOC);
	__type(key, int);
	__type(value, struct counts);
} per_task SEC(".maps"), brief SEC(".maps");

struct {
	__uint(type, QUEUE);
	__uint(max_entries, 4);
	__uint(key_size, 0);
	__uint(value_size, 8);
} queue SEC(".maps");

struct {
	__uint(type, STACK);
	__uint(max_entries, 4);
	__uint(key_size, 0);
	__uint(value_size, 8);
} stack SEC(".maps");

struct {
	__uint(type, BLOOM_FILTER);
	__uint(max_entries, 64);
	__uint(map_flags, ZERO_SEED);
	__uint(value_size, 8);
} seen SEC(".maps");

struct {
	__uint(type, CGROUP_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} cgroups SEC(".maps");

struct prefix {
	__u32 prefixlen;
	__u8 data[4];
};

struct {
	__uint(type, LPM_TRIE);
	__uint(max_entries, 16);
	__uint(map_flags, NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u64);
} trie SEC(".maps");

long out[8];

SEC("tp_btf/sched_switch")
int count_switches(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1], *next = (void *)ctx[2];
	struct counts *found;

	found = bpf_task_storage_get(&per_task, prev, 0, CREATE);
	if (found)
		found->switched_out++;
	found = bpf_task_storage_get(&per_task, next, 0, CREATE);
	if (found)
		found->switched_in++;
	return 0;
}

SEC("tp_btf/sys_enter")
int come_and_go(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct counts first = {7, 8}, *found;

	out[0] = (long)bpf_task_storage_get(&brief, task, &first, 0);
	out[1] = (long)bpf_task_storage_get(&brief, task, &first, 2);
	found = bpf_task_storage_get(&brief, task, &first, CREATE);
	out[2] = found ? found->switched_out * 10 + found->switched_in : -1;
	out[3] = bpf_task_storage_delete(&brief, task);
	out[4] = bpf_task_storage_delete(&brief, task);
	found = bpf_task_storage_get(&brief, task, 0, CREATE);
	out[5] = found ? found->switched_out : -1;
	return 0;
}

SEC("raw_tp/sys_enter")
int push_and_pop(__u64 *ctx)
{
	__u64 value = ctx[1];

	out[0] = bpf_map_push_elem(&queue, &value, 0);
	out[1] = bpf_map_push_elem(&stack, &value, 2);
	if (ctx[1] % 3 == 0) {
		out[2] = bpf_map_pop_elem(&queue, &value) ?: value;
		out[3] = bpf_map_pop_elem(&stack, &value) ?: value;
	}
	out[4] = bpf_map_peek_elem(&queue, &value);
	out[5] = value;
	return 0;
}

SEC("raw_tp/sys_enter")
int filter(__u64 *ctx)
{
	__u64 value = ctx[1];

	out[0] = bpf_map_peek_elem(&seen, &value);
	out[1] = bpf_map_push_elem(&seen, &value, 0);
	out[2] = bpf_map_peek_elem(&seen, &value);
	out[3] = bpf_map_push_elem(&seen, &value, 1);
	return 0;
}

SEC("raw_tp/sys_enter")
int longest_prefix(__u64 *ctx)
{
	struct prefix key = {.prefixlen = 24, .data = {10, 1, ctx[1], 0}};
	__u64 value = ctx[1], *found;

	out[0] = bpf_map_update_elem(&trie, &key, &value, 0);
	key.prefixlen = 32;
	key.data[3] = 9;
	found = bpf_map_lookup_elem(&trie, &key);
	out[1] = found ? *found : -1;
	key.data[1] = 2;
	out[2] = (long)bpf_map_lookup_elem(&trie, &key);
	out[3] = bpf_map_delete_elem(&trie, &key);
	return 0;
}

SEC("raw_tp/sys_enter")
int under_cgroup(__u64 *ctx)
{
	out[0] = bpf_current_task_under_cgroup(&cgroups, 0);
	out[1] = bpf_current_task_under_cgroup(&cgroups, 2);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
