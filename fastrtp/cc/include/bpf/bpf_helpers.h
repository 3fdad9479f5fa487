/* What a BPF program in C is made of: sections, maps, tags that the loader and the verifier read, loops, printing.
 *
 * The names are those that BPF programs use everywhere, so that sources written for other loaders compile. Include vmlinux.h (or
 * linux/bpf.h) first: the types come from there. */
#ifndef __BPF_HELPERS__
#define __BPF_HELPERS__

#include "bpf_helper_defs.h"

#ifndef NULL
#define NULL ((void *)0)
#endif

/* Where a thing goes: programs and maps are found by their section. */
#define SEC(name) __attribute__((section(name), used))
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif
#define __hidden __attribute__((visibility("hidden")))

/* Members of a map definition: what is said of the map is in the member's type. */
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __ulong(name, val) enum { ___bpf_concat(name##_value_, __COUNTER__) = (val) } name

enum libbpf_pin_type {
	LIBBPF_PIN_NONE,
	LIBBPF_PIN_BY_NAME,
};

/* What a __kconfig variable of this type reads of a tristate option. */
enum libbpf_tristate {
	TRI_NO = 0,
	TRI_YES = 1,
	TRI_MODULE = 2,
};

/* Pointers to kernel objects in map values. */
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define __uptr __attribute__((btf_type_tag("uptr")))

/* What the verifier takes for granted of the arguments of a global function, and checks where it is called. */
#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))
#define __arg_nullable __attribute__((btf_decl_tag("arg:nullable")))
#define __arg_trusted __attribute__((btf_decl_tag("arg:trusted")))
#define __arg_untrusted __attribute__((btf_decl_tag("arg:untrusted")))
#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))

#ifndef KERNEL_VERSION
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + ((patch) > 255 ? 255 : (patch)))
#endif

/* Not __builtin_offsetof: the place of the member is that in the kernel at hand (CO-RE). */
#undef offsetof
#define offsetof(type, member) ((unsigned long)&((type *)0)->member)
#undef container_of
#define container_of(ptr, type, member)                                                                                          \
	({                                                                                                                       \
		void *___inner = (void *)(ptr);                                                                                  \
		(type *)(___inner - offsetof(type, member));                                                                     \
	})

/* The compiler may not carry memory, or what it knows of a variable, across these. */
#ifndef barrier
#define barrier() asm volatile("" : : : "memory")
#endif
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif

#ifndef __bpf_unreachable
#define __bpf_unreachable() __builtin_trap()
#endif

/* A tail call whose slot the verifier sees as a constant. */
static __always_inline void bpf_tail_call_static(void *ctx, const void *map, const __u32 slot)
{
	if (!__builtin_constant_p(slot))
		__bpf_unreachable();
	asm volatile("r1 = %[ctx]\n\t"
		     "r2 = %[map]\n\t"
		     "r3 = %[slot]\n\t"
		     "call 12"
		     :
		     : [ctx] "r"(ctx), [map] "r"(map), [slot] "i"(slot)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
}

/* Whether a weak __ksym is there. */
#define bpf_ksym_exists(sym)                                                                                                     \
	({                                                                                                                       \
		_Static_assert(!__builtin_constant_p(!!(sym)), #sym " should be marked as __weak");                              \
		!!(sym);                                                                                                         \
	})

/* Counting and choosing by the number of arguments. */
#define ___bpf_join(a, b) a##b
#define ___bpf_concat(a, b) ___bpf_join(a, b)
#define ___bpf_apply(fn, n) ___bpf_concat(fn, n)
#define ___bpf_nth(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, n, ...) n
#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)

#define ___bpf_fill0(arr, at, ...)
#define ___bpf_fill1(arr, at, x) arr[at] = (unsigned long long)(x);
#define ___bpf_fill2(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill1(arr, at + 1, more)
#define ___bpf_fill3(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill2(arr, at + 1, more)
#define ___bpf_fill4(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill3(arr, at + 1, more)
#define ___bpf_fill5(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill4(arr, at + 1, more)
#define ___bpf_fill6(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill5(arr, at + 1, more)
#define ___bpf_fill7(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill6(arr, at + 1, more)
#define ___bpf_fill8(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill7(arr, at + 1, more)
#define ___bpf_fill9(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill8(arr, at + 1, more)
#define ___bpf_fill10(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill9(arr, at + 1, more)
#define ___bpf_fill11(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill10(arr, at + 1, more)
#define ___bpf_fill12(arr, at, x, more...) ___bpf_fill1(arr, at, x) ___bpf_fill11(arr, at + 1, more)
#define ___bpf_fill(arr, args...) ___bpf_apply(___bpf_fill, ___bpf_narg(args))(arr, 0, args)

#define ___bpf_pragma(text) _Pragma(#text)
/* Arguments of formats are pointers and numbers of all sizes, and are passed as u64. */
#define ___bpf_quiet_casts                                                                                                       \
	___bpf_pragma(GCC diagnostic push) ___bpf_pragma(GCC diagnostic ignored "-Wint-conversion")
#define ___bpf_loud_casts ___bpf_pragma(GCC diagnostic pop)

/* The arguments as an array of u64, `___param`, and the format as a read-only string, `___fmt`. */
#define ___bpf_format(fmt, args...)                                                                                              \
	static const char ___fmt[] = fmt;                                                                                        \
	unsigned long long ___param[___bpf_narg(args) ?: 1];                                                                     \
	___bpf_quiet_casts ___bpf_fill(___param, args) ___bpf_loud_casts

#define BPF_SEQ_PRINTF(seq, fmt, args...)                                                                                        \
	({                                                                                                                       \
		___bpf_format(fmt, args);                                                                                        \
		bpf_seq_printf(seq, ___fmt, sizeof(___fmt), ___param, 8 * ___bpf_narg(args));                                    \
	})

#define BPF_SNPRINTF(out, out_size, fmt, args...)                                                                                \
	({                                                                                                                       \
		___bpf_format(fmt, args);                                                                                        \
		bpf_snprintf(out, out_size, ___fmt, ___param, 8 * ___bpf_narg(args));                                            \
	})

#ifdef BPF_NO_GLOBAL_DATA
#define ___BPF_FMT_PLACE
#else
#define ___BPF_FMT_PLACE static const
#endif

#define __bpf_printk(fmt, args...)                                                                                               \
	({                                                                                                                       \
		___BPF_FMT_PLACE char ___fmt[] = fmt;                                                                            \
		bpf_trace_printk(___fmt, sizeof(___fmt), ##args);                                                                \
	})

#define __bpf_vprintk(fmt, args...)                                                                                              \
	({                                                                                                                       \
		___bpf_format(fmt, args);                                                                                        \
		bpf_trace_vprintk(___fmt, sizeof(___fmt), ___param, 8 * ___bpf_narg(args));                                      \
	})

/* bpf_trace_printk takes three arguments; more go through bpf_trace_vprintk. */
#define ___bpf_choose_printk(...)                                                                                                \
	___bpf_nth(_, ##__VA_ARGS__, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk,   \
		   __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_printk, __bpf_printk, __bpf_printk, __bpf_printk)
#define bpf_printk(fmt, args...) ___bpf_choose_printk(args)(fmt, ##args)

/* Open-coded iterators. `bpf_for(i, 0, n)` counts, `bpf_repeat(n)` only repeats, `bpf_for_each(kind, it, ...)` is for any kind of
 * iterator: bpf_iter_<kind>_new, _next and _destroy. break and continue work as in every loop. */
struct bpf_iter_num;

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;

#define ___bpf_iter(kind, it, args...)                                                                                           \
	struct bpf_iter_##kind it __attribute__((aligned(8), cleanup(bpf_iter_##kind##_destroy))),                               \
		*___bpf_concat(___made_, it) __attribute__((unused)) =                                                           \
			(bpf_iter_##kind##_new(&it, ##args), (void)bpf_iter_##kind##_destroy, (void *)0)

#ifndef bpf_for_each
#define bpf_for_each(kind, cur, args...) for (___bpf_iter(kind, ___it, ##args); (((cur) = bpf_iter_##kind##_next(&___it)));)
#endif

#ifndef bpf_for
#define bpf_for(i, start, end)                                                                                                   \
	for (___bpf_iter(num, ___it, (start), (end)); ({                                                                         \
		     int *___next = bpf_iter_num_next(&___it);                                                                   \
		     /* the verifier does not know the bounds of what next() gives: here they are shown to it */                 \
		     ___next ? ((i) = *___next, (i) >= (start) && (i) < (end)) : 0;                                              \
	     });)
#endif

#ifndef bpf_repeat
#define bpf_repeat(n) for (___bpf_iter(num, ___it, 0, (n)); bpf_iter_num_next(&___it);)
#endif

#endif
