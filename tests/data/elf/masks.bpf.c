/* CPU masks in maps, dynptrs and strings by kernel functions, as tools use them (test_masks.py). */
#define SEC(name) __attribute__((section(name), used))
#define __ksym __attribute__((section(".ksyms")))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __kptr __attribute__((btf_type_tag("kptr")))

typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef _Bool bool;

struct bpf_dynptr { __u64 __opaque[2]; } __attribute__((aligned(8)));

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct cpumask { unsigned long bits[1]; };
struct bpf_cpumask { struct cpumask cpumask; };
struct task_struct { int pid; char comm[16]; const struct cpumask *cpus_ptr; };
#pragma clang attribute pop

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_kptr_xchg)(void *field, void *value) = (void *)194;
static long (*bpf_dynptr_from_mem)(void *data, __u32 size, __u64 flags, struct bpf_dynptr *ptr) = (void *)197;

extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
extern struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_set_cpu(__u32 cpu, struct bpf_cpumask *mask) __ksym;
extern bool bpf_cpumask_test_cpu(__u32 cpu, const struct cpumask *mask) __ksym;
extern __u32 bpf_cpumask_weight(const struct cpumask *mask) __ksym;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *ptr, __u32 start, __u32 end) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern int bpf_strcmp(const char *one, const char *other) __ksym;
extern int bpf_strstr(const char *string, const char *part) __ksym;

struct kept { struct bpf_cpumask __kptr *mask; };
struct { __uint(type, 2); __uint(max_entries, 2); __type(key, __u32); __type(value, struct kept); } masks SEC(".maps");

__u32 weight, swaps, shared_weight, size, found, same, cpus = 99;
char text[32] = "on cpu 7 of 8";
const char wanted[8] = "cpu ";
__u64 bytes[4] = { 1, 2, 3, 4 };
char _license[] SEC("license") = "GPL";

/* A mask with one more CPU each time takes the place of the one that was there. */
SEC("tp_btf/task_rename") int swap(__u64 *ctx)
{
	__u32 key = 0;
	struct kept *kept = bpf_map_lookup_elem(&masks, &key);
	struct bpf_cpumask *mask = bpf_cpumask_create(), *old;
	if (!mask)
		return 0;
	if (!kept) {
		bpf_cpumask_release(mask);
		return 0;
	}
	bpf_cpumask_set_cpu(0, mask);
	if (swaps)
		bpf_cpumask_set_cpu(1, mask);
	weight = bpf_cpumask_weight((const struct cpumask *)mask);
	old = bpf_kptr_xchg(&kept->mask, mask);
	if (old) {
		swaps++;
		bpf_cpumask_release(old);
	}
	return 0;
}

/* What the map has is looked at where it is, and held for longer. */
SEC("tp_btf/task_rename") int look(__u64 *ctx)
{
	__u32 key = 0;
	struct kept *kept = bpf_map_lookup_elem(&masks, &key);
	struct bpf_cpumask *mask;
	if (!kept)
		return 0;
	mask = kept->mask;
	if (mask)
		shared_weight = bpf_cpumask_weight((const struct cpumask *)mask);
	return 0;
}

SEC("tp_btf/task_rename") int of_task(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	cpus = bpf_cpumask_weight(task->cpus_ptr);
	return 0;
}

SEC("raw_tp/task_rename") int texts(__u64 *ctx)
{
	found = bpf_strstr(text, wanted);
	same = bpf_strcmp(wanted, "cpu ");
	return 0;
}

SEC("raw_tp/task_rename") int pieces(__u64 *ctx)
{
	struct bpf_dynptr ptr;
	__u64 *piece;
	bpf_dynptr_from_mem(bytes, sizeof(bytes), 0, &ptr);
	if (bpf_dynptr_adjust(&ptr, 8, 24))
		return 0;
	size = bpf_dynptr_size(&ptr);
	piece = bpf_dynptr_slice(&ptr, 8, 0, 8);
	if (piece)
		size += *piece << 8;
	return 0;
}

SEC("tp_btf/task_rename") int kept_mask(__u64 *ctx)
{
	struct bpf_cpumask *mask = bpf_cpumask_create();
	return mask != 0;
}

SEC("tp_btf/task_rename") int of_raw_task(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	return bpf_cpumask_weight((const struct cpumask *)task);
}

SEC("tp_btf/task_rename") int wrong_kptr(__u64 *ctx)
{
	__u32 key = 0;
	struct kept *kept = bpf_map_lookup_elem(&masks, &key);
	if (kept)
		bpf_kptr_xchg(&kept->mask, bpf_get_current_task_btf());
	return 0;
}
