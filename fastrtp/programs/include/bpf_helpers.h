/* What a BPF program needs beside vmlinux.h: section and map macros, helper declarations, CO-RE reads.
 * The numbers and signatures of helpers are the kernel's (include/uapi/linux/bpf.h). Include vmlinux.h first. */
#ifndef FASTRTP_BPF_HELPERS_H
#define FASTRTP_BPF_HELPERS_H

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __weak __attribute__((weak))
#define __hidden __attribute__((visibility("hidden")))
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))

/* Members of a map definition: the value is in the member's type. */
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __ulong_join(a, b) a##b
#define __ulong_name(a, b) __ulong_join(a, b)
#define __ulong(name, val) enum { __ulong_name(name##_value_, __COUNTER__) = val } name

#define HELPER(number, ret, name, ...) static ret (*const name)(__VA_ARGS__) = (ret (*)(__VA_ARGS__))number

HELPER(1, void *, bpf_map_lookup_elem, void *map, const void *key);
HELPER(2, long, bpf_map_update_elem, void *map, const void *key, const void *value, __u64 flags);
HELPER(3, long, bpf_map_delete_elem, void *map, const void *key);
HELPER(5, __u64, bpf_ktime_get_ns, void);
HELPER(6, long, bpf_trace_printk, const char *fmt, __u32 fmt_size, ...);
HELPER(7, __u32, bpf_get_prandom_u32, void);
HELPER(8, __u32, bpf_get_smp_processor_id, void);
HELPER(12, long, bpf_tail_call, void *ctx, void *prog_array, __u32 index);
HELPER(14, __u64, bpf_get_current_pid_tgid, void);
HELPER(15, __u64, bpf_get_current_uid_gid, void);
HELPER(16, long, bpf_get_current_comm, void *buf, __u32 size);
HELPER(25, long, bpf_perf_event_output, void *ctx, void *map, __u64 flags, void *data, __u64 size);
HELPER(35, __u64, bpf_get_current_task, void);
HELPER(112, long, bpf_probe_read_user, void *dst, __u32 size, const void *unsafe_ptr);
HELPER(113, long, bpf_probe_read_kernel, void *dst, __u32 size, const void *unsafe_ptr);
HELPER(115, long, bpf_probe_read_kernel_str, void *dst, __u32 size, const void *unsafe_ptr);
HELPER(118, __u64, bpf_jiffies64, void);
HELPER(130, long, bpf_ringbuf_output, void *ringbuf, void *data, __u64 size, __u64 flags);
HELPER(131, void *, bpf_ringbuf_reserve, void *ringbuf, __u64 size, __u64 flags);
HELPER(132, void, bpf_ringbuf_submit, void *data, __u64 flags);
HELPER(133, void, bpf_ringbuf_discard, void *data, __u64 flags);
HELPER(164, long, bpf_for_each_map_elem, void *map, void *callback, void *ctx, __u64 flags);
HELPER(181, long, bpf_loop, __u32 iterations, void *callback, void *ctx, __u64 flags);

#undef HELPER

/* The field of a kernel object, at its place in the running kernel. */
#define CORE_READ(ptr, field)                                                                                                    \
	({                                                                                                                       \
		typeof((ptr)->field) __value;                                                                                    \
		bpf_probe_read_kernel(&__value, sizeof(__value), __builtin_preserve_access_index(&(ptr)->field));                \
		__value;                                                                                                         \
	})
#define CORE_READ_STR(dst, ptr, field)                                                                                           \
	bpf_probe_read_kernel_str(dst, sizeof(*(dst)), __builtin_preserve_access_index(&(ptr)->field))

/* Kinds of __builtin_preserve_field_info, __builtin_preserve_type_info, __builtin_preserve_enum_value. */
enum core_field_info {
	CORE_FIELD_BYTE_OFFSET = 0,
	CORE_FIELD_BYTE_SIZE = 1,
	CORE_FIELD_EXISTS = 2,
	CORE_FIELD_SIGNED = 3,
	CORE_FIELD_LSHIFT_U64 = 4,
	CORE_FIELD_RSHIFT_U64 = 5,
};
#define core_field(ptr, field, info) __builtin_preserve_field_info((ptr)->field, info)
#define core_field_exists(ptr, field) core_field(ptr, field, CORE_FIELD_EXISTS)
#define core_type_id_local(type) __builtin_btf_type_id(*(typeof(type) *)0, 0)
#define core_type_id_kernel(type) __builtin_btf_type_id(*(typeof(type) *)0, 1)
#define core_type_exists(type) __builtin_preserve_type_info(*(typeof(type) *)0, 0)
#define core_type_size(type) __builtin_preserve_type_info(*(typeof(type) *)0, 1)
#define core_type_matches(type) __builtin_preserve_type_info(*(typeof(type) *)0, 2)
#define core_enum_value_exists(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)
#define core_enum_value(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 1)

#endif
