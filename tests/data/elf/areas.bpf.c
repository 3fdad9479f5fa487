/* Memory of kernel objects given to helpers: who may read it, and what they read (test_areas.py). */
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

typedef unsigned int __u32;
typedef unsigned long long __u64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct {
	int pid, tgid;
	char comm[16];
	__u64 start_time;
	struct task_struct *group_leader, *last_wakee;
};
#pragma clang attribute pop

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_perf_event_output)(void *ctx, void *map, __u64 flags, const void *data, __u64 size) = (void *)25;
static long (*bpf_strtol)(const char *buf, __u64 len, __u64 flags, long *res) = (void *)105;
static long (*bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*bpf_ringbuf_output)(void *ringbuf, const void *data, __u64 size, __u64 flags) = (void *)130;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_snprintf)(char *str, __u32 size, const char *fmt, const void *data, __u32 len) = (void *)165;
static long (*bpf_strncmp)(const char *s1, __u32 size, const char *s2) = (void *)182;
static long (*bpf_dynptr_from_mem)(void *data, __u32 size, __u64 flags, void *ptr) = (void *)197;
static long (*bpf_dynptr_write)(void *dst, __u32 offset, const void *src, __u32 len, __u64 flags) = (void *)202;

struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, 4); __uint(key_size, 4); __uint(value_size, 4); } perf SEC(".maps");
struct { __uint(type, 1); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); } hash SEC(".maps");

char LICENSE[] SEC("license") = "GPL";

char text[16];
long out[4];

SEC("tp_btf/sched_wakeup") int output(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, p->comm, 16, 0);
}

SEC("tp_btf/sched_wakeup") int perf_output(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_perf_event_output(ctx, &perf, 0xffffffff, p->comm, 16);
}

/* As long as the process number says, within the name. */
SEC("tp_btf/sched_wakeup") int output_some(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	__u32 size = p->pid & 7;

	return bpf_ringbuf_output(&ring, &p->comm[8], size ?: 1, 0);
}

/* One call for the object's memory and the stack's. */
SEC("tp_btf/sched_wakeup") int output_either(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	char own[16] = "on the stack";
	const void *from = p->pid & 1 ? own : p->comm;

	asm volatile("" : "+r"(from));
	return bpf_ringbuf_output(&ring, from, 16, 0);
}

SEC("tp_btf/sched_wakeup") int compare(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	out[0] = bpf_strncmp(p->comm, 16, "bash");
	return 0;
}

SEC("tp_btf/sched_wakeup") int parse(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	out[0] = bpf_strtol(p->comm, 8, 0, &out[1]);
	return 0;
}

SEC("tp_btf/sched_wakeup") int print(__u64 *ctx)
{
	static const char format[] = "%lld";
	struct task_struct *p = (void *)ctx[0];

	out[0] = bpf_snprintf(text, 16, format, &p->start_time, 8);
	return 0;
}

SEC("tp_btf/sched_wakeup") int write_dynptr(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	__u64 dynptr[2];

	bpf_dynptr_from_mem(text, 16, 0, dynptr);
	out[0] = bpf_dynptr_write(dynptr, 0, p->comm, 8, 0);
	return 0;
}

SEC("raw_tp/sys_enter") int current_output(__u64 *ctx)
{
	return bpf_ringbuf_output(&ring, bpf_get_current_task_btf()->comm, 16, 0);
}

SEC("tp_btf/sched_wakeup") int none_of_it(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, p->comm, 0, 0);
}

SEC("tp_btf/sched_wakeup") int two_members(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, &p->pid, 8, 0);
}

SEC("tp_btf/sched_wakeup") int too_much(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, &p->comm[8], p->pid & 15, 0);
}

SEC("tp_btf/sched_wakeup") int into_it(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_probe_read_kernel(p->comm, 16, text);
}

SEC("tp_btf/sched_wakeup") int as_key(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_map_lookup_elem(&hash, &p->pid) != 0;
}

SEC("tp_btf/sched_wakeup") int as_value(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];
	__u32 key = 1;

	return bpf_map_update_elem(&hash, &key, &p->start_time, 0);
}

SEC("tp_btf/sched_wakeup") int of_leader(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, p->group_leader->comm, 16, 0);
}

SEC("tp_btf/sched_wakeup") int of_wakee(__u64 *ctx)
{
	struct task_struct *p = (void *)ctx[0];

	return bpf_ringbuf_output(&ring, p->last_wakee->comm, 16, 0);
}
