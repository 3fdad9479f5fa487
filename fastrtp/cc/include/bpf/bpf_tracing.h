/* Programs with the arguments that they want, in place of a context: BPF_PROG for tracepoints and functions by BTF, BPF_KPROBE and
 * its like for those by registers; and the registers themselves, by the calling convention. Include vmlinux.h first.
 *
 * The machine is that of -D__TARGET_ARCH_<name> (x86, arm64, riscv), or else x86: recordings of others need it said. */
#ifndef __BPF_TRACING_H__
#define __BPF_TRACING_H__

#include "bpf_helpers.h"

#if !defined(__TARGET_ARCH_x86) && !defined(__TARGET_ARCH_arm64) && !defined(__TARGET_ARCH_riscv)
#define __TARGET_ARCH_x86
#endif

/* Registers: arguments 1 to 8 of a function, of a system call, what a function returns, frame and stack pointer, where it is. */
#if defined(__TARGET_ARCH_x86)
#define bpf_target_x86
#define ___bpf_regs struct pt_regs
#if defined(__KERNEL__) || defined(__VMLINUX_H__)
#define ___bpf_reg(name) name
#else
#define ___bpf_reg(name) r##name
#endif
#define __PT_PARM1_REG ___bpf_reg(di)
#define __PT_PARM2_REG ___bpf_reg(si)
#define __PT_PARM3_REG ___bpf_reg(dx)
#define __PT_PARM4_REG ___bpf_reg(cx)
#define __PT_PARM5_REG r8
#define __PT_PARM6_REG r9
#define __PT_PARM1_SYSCALL_REG __PT_PARM1_REG
#define __PT_PARM4_SYSCALL_REG r10
#define __PT_RET_REG ___bpf_reg(sp)
#define __PT_FP_REG ___bpf_reg(bp)
#define __PT_RC_REG ___bpf_reg(ax)
#define __PT_SP_REG ___bpf_reg(sp)
#define __PT_IP_REG ___bpf_reg(ip)
#define PT_REGS_SYSCALL_REGS(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))

#elif defined(__TARGET_ARCH_arm64)
#define bpf_target_arm64
#define ___bpf_regs struct user_pt_regs
struct pt_regs___arm64 {
	unsigned long orig_x0;
} __attribute__((preserve_access_index));
#define __PT_PARM1_REG regs[0]
#define __PT_PARM2_REG regs[1]
#define __PT_PARM3_REG regs[2]
#define __PT_PARM4_REG regs[3]
#define __PT_PARM5_REG regs[4]
#define __PT_PARM6_REG regs[5]
#define __PT_PARM7_REG regs[6]
#define __PT_PARM8_REG regs[7]
/* the first argument's register is also that of the result: the kernel keeps the argument elsewhere */
#define PT_REGS_PARM1_SYSCALL(x) (((struct pt_regs___arm64 *)(x))->orig_x0)
#define PT_REGS_PARM1_CORE_SYSCALL(x) BPF_CORE_READ((struct pt_regs___arm64 *)(x), orig_x0)
#define __PT_PARM4_SYSCALL_REG __PT_PARM4_REG
#define __PT_RET_REG regs[30]
#define __PT_FP_REG regs[29]
#define __PT_RC_REG regs[0]
#define __PT_SP_REG sp
#define __PT_IP_REG pc
#define PT_REGS_SYSCALL_REGS(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))

#else
#define bpf_target_riscv
#define ___bpf_regs struct user_regs_struct
#define __PT_PARM1_REG a0
#define __PT_PARM2_REG a1
#define __PT_PARM3_REG a2
#define __PT_PARM4_REG a3
#define __PT_PARM5_REG a4
#define __PT_PARM6_REG a5
#define __PT_PARM7_REG a6
#define __PT_PARM8_REG a7
#define __PT_PARM1_SYSCALL_REG orig_a0
#define __PT_PARM4_SYSCALL_REG __PT_PARM4_REG
#define __PT_RET_REG ra
#define __PT_FP_REG s0
#define __PT_RC_REG a0
#define __PT_SP_REG sp
#define __PT_IP_REG pc
#define PT_REGS_SYSCALL_REGS(ctx) ((struct pt_regs *)PT_REGS_PARM1(ctx))
#endif

#define __PT_REGS_CAST(x) ((___bpf_regs *)(x))

#define PT_REGS_PARM1(x) (__PT_REGS_CAST(x)->__PT_PARM1_REG)
#define PT_REGS_PARM1_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM1_REG)
#define PT_REGS_PARM2(x) (__PT_REGS_CAST(x)->__PT_PARM2_REG)
#define PT_REGS_PARM2_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM2_REG)
#define PT_REGS_PARM3(x) (__PT_REGS_CAST(x)->__PT_PARM3_REG)
#define PT_REGS_PARM3_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM3_REG)
#define PT_REGS_PARM4(x) (__PT_REGS_CAST(x)->__PT_PARM4_REG)
#define PT_REGS_PARM4_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM4_REG)
#define PT_REGS_PARM5(x) (__PT_REGS_CAST(x)->__PT_PARM5_REG)
#define PT_REGS_PARM5_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM5_REG)
#define PT_REGS_PARM6(x) (__PT_REGS_CAST(x)->__PT_PARM6_REG)
#define PT_REGS_PARM6_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM6_REG)
#ifdef __PT_PARM7_REG
#define PT_REGS_PARM7(x) (__PT_REGS_CAST(x)->__PT_PARM7_REG)
#define PT_REGS_PARM7_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM7_REG)
#endif
#ifdef __PT_PARM8_REG
#define PT_REGS_PARM8(x) (__PT_REGS_CAST(x)->__PT_PARM8_REG)
#define PT_REGS_PARM8_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM8_REG)
#endif
#define PT_REGS_RET(x) (__PT_REGS_CAST(x)->__PT_RET_REG)
#define PT_REGS_RET_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_RET_REG)
#define PT_REGS_FP(x) (__PT_REGS_CAST(x)->__PT_FP_REG)
#define PT_REGS_FP_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_FP_REG)
#define PT_REGS_RC(x) (__PT_REGS_CAST(x)->__PT_RC_REG)
#define PT_REGS_RC_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_RC_REG)
#define PT_REGS_SP(x) (__PT_REGS_CAST(x)->__PT_SP_REG)
#define PT_REGS_SP_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_SP_REG)
#define PT_REGS_IP(x) (__PT_REGS_CAST(x)->__PT_IP_REG)
#define PT_REGS_IP_CORE(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_IP_REG)
#ifndef PT_REGS_PARM1_SYSCALL
#define PT_REGS_PARM1_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM1_SYSCALL_REG)
#define PT_REGS_PARM1_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM1_SYSCALL_REG)
#endif
#define PT_REGS_PARM2_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM2_REG)
#define PT_REGS_PARM2_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM2_REG)
#define PT_REGS_PARM3_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM3_REG)
#define PT_REGS_PARM3_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM3_REG)
#define PT_REGS_PARM4_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM4_SYSCALL_REG)
#define PT_REGS_PARM4_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM4_SYSCALL_REG)
#define PT_REGS_PARM5_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM5_REG)
#define PT_REGS_PARM5_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM5_REG)
#define PT_REGS_PARM6_SYSCALL(x) (__PT_REGS_CAST(x)->__PT_PARM6_REG)
#define PT_REGS_PARM6_CORE_SYSCALL(x) BPF_CORE_READ(__PT_REGS_CAST(x), __PT_PARM6_REG)

/* Where a function was called from: of an entry, and of a return, of which the frame pointer tells. */
#if defined(__TARGET_ARCH_x86)
#define BPF_KPROBE_READ_RET_IP(ip, ctx) ({ bpf_probe_read_kernel(&(ip), sizeof(ip), (void *)PT_REGS_SP(ctx)); })
#define BPF_KRETPROBE_READ_RET_IP(ip, ctx) ({ bpf_probe_read_kernel(&(ip), sizeof(ip), (void *)(PT_REGS_FP(ctx) + sizeof(ip))); })
#else
#define BPF_KPROBE_READ_RET_IP(ip, ctx) ({ (ip) = PT_REGS_RET(ctx); })
#define BPF_KRETPROBE_READ_RET_IP(ip, ctx) ({ bpf_probe_read_kernel(&(ip), sizeof(ip), (void *)(PT_REGS_FP(ctx) + sizeof(ip))); })
#endif

/* The context, and as many of its words or registers as there are parameters; the first macro argument is the last one left. */
#define ___bpf_ctx_cast0() ctx
#define ___bpf_ctx_cast1(x) ___bpf_ctx_cast0(), (void *)ctx[0]
#define ___bpf_ctx_cast2(x, more...) ___bpf_ctx_cast1(more), (void *)ctx[1]
#define ___bpf_ctx_cast3(x, more...) ___bpf_ctx_cast2(more), (void *)ctx[2]
#define ___bpf_ctx_cast4(x, more...) ___bpf_ctx_cast3(more), (void *)ctx[3]
#define ___bpf_ctx_cast5(x, more...) ___bpf_ctx_cast4(more), (void *)ctx[4]
#define ___bpf_ctx_cast6(x, more...) ___bpf_ctx_cast5(more), (void *)ctx[5]
#define ___bpf_ctx_cast7(x, more...) ___bpf_ctx_cast6(more), (void *)ctx[6]
#define ___bpf_ctx_cast8(x, more...) ___bpf_ctx_cast7(more), (void *)ctx[7]
#define ___bpf_ctx_cast9(x, more...) ___bpf_ctx_cast8(more), (void *)ctx[8]
#define ___bpf_ctx_cast10(x, more...) ___bpf_ctx_cast9(more), (void *)ctx[9]
#define ___bpf_ctx_cast11(x, more...) ___bpf_ctx_cast10(more), (void *)ctx[10]
#define ___bpf_ctx_cast12(x, more...) ___bpf_ctx_cast11(more), (void *)ctx[11]
#define ___bpf_ctx_cast(args...) ___bpf_apply(___bpf_ctx_cast, ___bpf_narg(args))(args)

#define ___bpf_kprobe_args0() ctx
#define ___bpf_kprobe_args1(x) ___bpf_kprobe_args0(), (void *)PT_REGS_PARM1(ctx)
#define ___bpf_kprobe_args2(x, more...) ___bpf_kprobe_args1(more), (void *)PT_REGS_PARM2(ctx)
#define ___bpf_kprobe_args3(x, more...) ___bpf_kprobe_args2(more), (void *)PT_REGS_PARM3(ctx)
#define ___bpf_kprobe_args4(x, more...) ___bpf_kprobe_args3(more), (void *)PT_REGS_PARM4(ctx)
#define ___bpf_kprobe_args5(x, more...) ___bpf_kprobe_args4(more), (void *)PT_REGS_PARM5(ctx)
#define ___bpf_kprobe_args6(x, more...) ___bpf_kprobe_args5(more), (void *)PT_REGS_PARM6(ctx)
#define ___bpf_kprobe_args7(x, more...) ___bpf_kprobe_args6(more), (void *)PT_REGS_PARM7(ctx)
#define ___bpf_kprobe_args8(x, more...) ___bpf_kprobe_args7(more), (void *)PT_REGS_PARM8(ctx)
#define ___bpf_kprobe_args(args...) ___bpf_apply(___bpf_kprobe_args, ___bpf_narg(args))(args)

#define ___bpf_syscall_args0() ctx
#define ___bpf_syscall_args1(x) ___bpf_syscall_args0(), (void *)PT_REGS_PARM1_CORE_SYSCALL(regs)
#define ___bpf_syscall_args2(x, more...) ___bpf_syscall_args1(more), (void *)PT_REGS_PARM2_CORE_SYSCALL(regs)
#define ___bpf_syscall_args3(x, more...) ___bpf_syscall_args2(more), (void *)PT_REGS_PARM3_CORE_SYSCALL(regs)
#define ___bpf_syscall_args4(x, more...) ___bpf_syscall_args3(more), (void *)PT_REGS_PARM4_CORE_SYSCALL(regs)
#define ___bpf_syscall_args5(x, more...) ___bpf_syscall_args4(more), (void *)PT_REGS_PARM5_CORE_SYSCALL(regs)
#define ___bpf_syscall_args6(x, more...) ___bpf_syscall_args5(more), (void *)PT_REGS_PARM6_CORE_SYSCALL(regs)
#define ___bpf_syscall_args(args...) ___bpf_apply(___bpf_syscall_args, ___bpf_narg(args))(args)

#define ___bpf_kretprobe_args0() ctx
#define ___bpf_kretprobe_args1(x) ctx, (void *)PT_REGS_RC(ctx)
#define ___bpf_kretprobe_args(args...) ___bpf_apply(___bpf_kretprobe_args, ___bpf_narg(args))(args)

/* In each of these `name` is the program, and `____name` what the user writes behind the macro, with parameters of its own: words
 * and registers are passed as pointers, whatever their types. */

/* SEC("tp_btf/..."), SEC("raw_tp/..."), fentry, fexit, LSM: arguments are words of the context. */
#define BPF_PROG(name, args...)                                                                                                  \
	name(unsigned long long *ctx);                                                                                           \
	static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx, ##args);                                      \
	typeof(name(0)) name(unsigned long long *ctx)                                                                            \
	{                                                                                                                        \
		___bpf_quiet_casts                                                                                               \
		return ____##name(___bpf_ctx_cast(args));                                                                        \
		___bpf_loud_casts                                                                                                \
	}                                                                                                                        \
	static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx, ##args)

/* Entries and returns of functions, by their registers. */
#define BPF_KPROBE(name, args...)                                                                                                \
	name(struct pt_regs *ctx);                                                                                               \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args);                                          \
	typeof(name(0)) name(struct pt_regs *ctx)                                                                                \
	{                                                                                                                        \
		___bpf_quiet_casts                                                                                               \
		return ____##name(___bpf_kprobe_args(args));                                                                               \
		___bpf_loud_casts                                                                                                \
	}                                                                                                                        \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args)

#define BPF_KRETPROBE(name, args...)                                                                                                \
	name(struct pt_regs *ctx);                                                                                               \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args);                                          \
	typeof(name(0)) name(struct pt_regs *ctx)                                                                                \
	{                                                                                                                        \
		___bpf_quiet_casts                                                                                               \
		return ____##name(___bpf_kretprobe_args(args));                                                                               \
		___bpf_loud_casts                                                                                                \
	}                                                                                                                        \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args)

#define BPF_UPROBE(name, args...) BPF_KPROBE(name, ##args)
#define BPF_URETPROBE(name, args...) BPF_KRETPROBE(name, ##args)

/* Entries of system calls. Where they have a wrapper, its one argument are the caller's registers. */
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig;

#define BPF_KSYSCALL(name, args...)                                                                                                \
	name(struct pt_regs *ctx);                                                                                               \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args);                                          \
	typeof(name(0)) name(struct pt_regs *ctx)                                                                                \
	{                                                                                                                        \
		___bpf_quiet_casts                                                                                               \
		struct pt_regs *regs = LINUX_HAS_SYSCALL_WRAPPER ? PT_REGS_SYSCALL_REGS(ctx) : ctx;                       \
		return ____##name(___bpf_syscall_args(args));                                                                               \
		___bpf_loud_casts                                                                                                \
	}                                                                                                                        \
	static __always_inline typeof(name(0)) ____##name(struct pt_regs *ctx, ##args)

#define BPF_KPROBE_SYSCALL BPF_KSYSCALL

/* BPF_PROG with structs by value: types and names in turn, BPF_PROG2(name, struct pair, p, int, n), at most six. A value of more
 * than eight bytes takes two words of the context. */
#define ___bpf_words(type) ((sizeof(type) + 7) / 8)
#define ___bpf_word_value(type, at)                                                                                              \
	({                                                                                                                       \
		union {                                                                                                          \
			type value;                                                                                              \
			unsigned long long word[2];                                                                              \
		} ___arg;                                                                                                        \
		___arg.word[0] = ctx[at];                                                                                        \
		if (sizeof(type) > 8)                                                                                            \
			___arg.word[1] = ctx[(at) + 1];                                                                          \
		___arg.value;                                                                                                    \
	})
#define ___bpf_params0()
#define ___bpf_params2(type, name) , type name
#define ___bpf_values0(at)
#define ___bpf_values2(at, type, name) , ___bpf_word_value(type, at)
#define ___bpf_params4(type, name, more...) , type name ___bpf_params2(more)
#define ___bpf_params6(type, name, more...) , type name ___bpf_params4(more)
#define ___bpf_params8(type, name, more...) , type name ___bpf_params6(more)
#define ___bpf_params10(type, name, more...) , type name ___bpf_params8(more)
#define ___bpf_params12(type, name, more...) , type name ___bpf_params10(more)
#define ___bpf_values4(at, type, name, more...) , ___bpf_word_value(type, at) ___bpf_values2((at) + ___bpf_words(type), more)
#define ___bpf_values6(at, type, name, more...) , ___bpf_word_value(type, at) ___bpf_values4((at) + ___bpf_words(type), more)
#define ___bpf_values8(at, type, name, more...) , ___bpf_word_value(type, at) ___bpf_values6((at) + ___bpf_words(type), more)
#define ___bpf_values10(at, type, name, more...) , ___bpf_word_value(type, at) ___bpf_values8((at) + ___bpf_words(type), more)
#define ___bpf_values12(at, type, name, more...) , ___bpf_word_value(type, at) ___bpf_values10((at) + ___bpf_words(type), more)
#define ___bpf_params(args...) ___bpf_apply(___bpf_params, ___bpf_narg(args))(args)
#define ___bpf_values(args...) ___bpf_apply(___bpf_values, ___bpf_narg(args))(0, ##args)
#define BPF_PROG2(name, args...)                                                                                                 \
	name(unsigned long long *ctx);                                                                                           \
	static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx ___bpf_params(args));                          \
	typeof(name(0)) name(unsigned long long *ctx)                                                                            \
	{                                                                                                                        \
		return ____##name(ctx ___bpf_values(args));                                                                      \
	}                                                                                                                        \
	static __always_inline typeof(name(0)) ____##name(unsigned long long *ctx ___bpf_params(args))

#endif
