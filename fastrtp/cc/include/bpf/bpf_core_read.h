/* Reads of kernel objects at the places where the kernel at hand has their members (CO-RE), and questions about its types.
 * Include vmlinux.h and bpf_helpers.h first. */
#ifndef __BPF_CORE_READ_H__
#define __BPF_CORE_READ_H__

#include "bpf_helpers.h"

/* Second arguments of clang's builtins; the numbers are those of bpf_core_relo_kind, group by group. */
enum bpf_field_info_kind {
	BPF_FIELD_BYTE_OFFSET = 0,
	BPF_FIELD_BYTE_SIZE = 1,
	BPF_FIELD_EXISTS = 2,
	BPF_FIELD_SIGNED = 3,
	BPF_FIELD_LSHIFT_U64 = 4,
	BPF_FIELD_RSHIFT_U64 = 5,
};

enum bpf_type_id_kind {
	BPF_TYPE_ID_LOCAL = 0,
	BPF_TYPE_ID_TARGET = 1,
};

enum bpf_type_info_kind {
	BPF_TYPE_EXISTS = 0,
	BPF_TYPE_SIZE = 1,
	BPF_TYPE_MATCHES = 2,
};

enum bpf_enum_value_kind {
	BPF_ENUMVAL_EXISTS = 0,
	BPF_ENUMVAL_VALUE = 1,
};

#define ___bpf_any(type) (*(typeof(type) *)0)
#define __CORE_RELO(src, field, info) __builtin_preserve_field_info((src)->field, BPF_FIELD_##info)

/* A field is given as (pointer->field) or as (type, field). */
#define ___bpf_field_place1(field) (field)
#define ___bpf_field_place2(type, field) (((typeof(type) *)0)->field)
#define ___bpf_field_place(args...) ___bpf_apply(___bpf_field_place, ___bpf_narg(args))(args)

#define bpf_core_field_exists(field...) __builtin_preserve_field_info(___bpf_field_place(field), BPF_FIELD_EXISTS)
#define bpf_core_field_size(field...) __builtin_preserve_field_info(___bpf_field_place(field), BPF_FIELD_BYTE_SIZE)
#define bpf_core_field_offset(field...) __builtin_preserve_field_info(___bpf_field_place(field), BPF_FIELD_BYTE_OFFSET)

#define bpf_core_type_id_local(type) __builtin_btf_type_id(___bpf_any(type), BPF_TYPE_ID_LOCAL)
#define bpf_core_type_id_kernel(type) __builtin_btf_type_id(___bpf_any(type), BPF_TYPE_ID_TARGET)
#define bpf_core_type_exists(type) __builtin_preserve_type_info(___bpf_any(type), BPF_TYPE_EXISTS)
#define bpf_core_type_matches(type) __builtin_preserve_type_info(___bpf_any(type), BPF_TYPE_MATCHES)
#define bpf_core_type_size(type) __builtin_preserve_type_info(___bpf_any(type), BPF_TYPE_SIZE)

#define bpf_core_enum_value_exists(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, BPF_ENUMVAL_EXISTS)
#define bpf_core_enum_value(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, BPF_ENUMVAL_VALUE)

/* The helpers, with an address that is relocated. */
#define bpf_core_read(dst, size, src) bpf_probe_read_kernel(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user(dst, size, src) bpf_probe_read_user(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_str(dst, size, src) bpf_probe_read_kernel_str(dst, size, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user_str(dst, size, src)                                                                                   \
	bpf_probe_read_user_str(dst, size, (const void *)__builtin_preserve_access_index(src))

/* An address as a pointer that may be followed, each read checked: struct task_struct *t = bpf_core_cast(p, struct task_struct). */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;
#define bpf_core_cast(ptr, type) ((typeof(type) *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))

/* Bitfields. The value is loaded as the memory around it, and shifted up and down into place. */
#define ___bpf_shifted(s, field, value)                                                                                          \
	({                                                                                                                       \
		unsigned long long ___bits = (value);                                                                            \
		___bits <<= __CORE_RELO(s, field, LSHIFT_U64);                                                                   \
		if (__CORE_RELO(s, field, SIGNED))                                                                               \
			___bits = ((long long)___bits) >> __CORE_RELO(s, field, RSHIFT_U64);                                     \
		else                                                                                                             \
			___bits >>= __CORE_RELO(s, field, RSHIFT_U64);                                                           \
		___bits;                                                                                                         \
	})

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define __CORE_BITFIELD_PROBE_READ(dst, src, fld)                                                                                \
	bpf_probe_read_kernel((void *)(dst), __CORE_RELO(src, fld, BYTE_SIZE),                                                   \
			      (const void *)(src) + __CORE_RELO(src, fld, BYTE_OFFSET))
#else
#define __CORE_BITFIELD_PROBE_READ(dst, src, fld)                                                                                \
	bpf_probe_read_kernel((void *)(dst) + (8 - __CORE_RELO(src, fld, BYTE_SIZE)), __CORE_RELO(src, fld, BYTE_SIZE),          \
			      (const void *)(src) + __CORE_RELO(src, fld, BYTE_OFFSET))
#endif

#define BPF_CORE_READ_BITFIELD_PROBED(s, field)                                                                                  \
	({                                                                                                                       \
		unsigned long long ___word = 0;                                                                                  \
		__CORE_BITFIELD_PROBE_READ(&___word, s, field);                                                                  \
		___bpf_shifted(s, field, ___word);                                                                               \
	})

/* For pointers that programs may follow without a helper. The address is hidden from the compiler, which would else merge it
 * with others and leave the verifier without a constant offset. */
#define BPF_CORE_READ_BITFIELD(s, field)                                                                                         \
	({                                                                                                                       \
		const void *___at = (const void *)(s) + __CORE_RELO(s, field, BYTE_OFFSET);                                      \
		unsigned long long ___word;                                                                                      \
		asm volatile("" : "+r"(___at));                                                                                  \
		switch (__CORE_RELO(s, field, BYTE_SIZE)) {                                                                      \
		case 1: ___word = *(const unsigned char *)___at; break;                                                          \
		case 2: ___word = *(const unsigned short *)___at; break;                                                         \
		case 4: ___word = *(const unsigned int *)___at; break;                                                           \
		case 8: ___word = *(const unsigned long long *)___at; break;                                                     \
		}                                                                                                                \
		___bpf_shifted(s, field, ___word);                                                                               \
	})

#define BPF_CORE_WRITE_BITFIELD(s, field, new_val)                                                                               \
	({                                                                                                                       \
		void *___at = (void *)(s) + __CORE_RELO(s, field, BYTE_OFFSET);                                                  \
		unsigned int ___size = __CORE_RELO(s, field, BYTE_SIZE), ___up = __CORE_RELO(s, field, LSHIFT_U64);              \
		unsigned int ___down = __CORE_RELO(s, field, RSHIFT_U64), ___shift;                                              \
		unsigned long long ___mask, ___word, ___new = (new_val);                                                         \
		asm volatile("" : "+r"(___at));                                                                                  \
		___shift = ___down - ___up;                                                                                      \
		___mask = (~0ULL << ___down) >> ___up;                                                                           \
		___new = (___new << ___shift) & ___mask;                                                                         \
		switch (___size) {                                                                                               \
		case 1: ___word = *(unsigned char *)___at; *(unsigned char *)___at = (___word & ~___mask) | ___new; break;       \
		case 2: ___word = *(unsigned short *)___at; *(unsigned short *)___at = (___word & ~___mask) | ___new; break;     \
		case 4: ___word = *(unsigned int *)___at; *(unsigned int *)___at = (___word & ~___mask) | ___new; break;         \
		case 8: ___word = *(unsigned long long *)___at; *(unsigned long long *)___at = (___word & ~___mask) | ___new; break; \
		}                                                                                                                \
	})

/* Chains: BPF_CORE_READ(task, mm, exe_file, f_inode, i_ino) is task->mm->exe_file->f_inode->i_ino, each pointer read by a helper.
 * A field may be a path of its own: (dentry, d_name.name). `___bpf_path` is the chain as C would have it, `___bpf_walk` reads all
 * pointers but the last field, each into a variable of its own. */
#define ___bpf_path1(p, a) (p)->a
#define ___bpf_path2(p, a, b) (p)->a->b
#define ___bpf_path3(p, a, b, c) (p)->a->b->c
#define ___bpf_path4(p, a, b, c, d) (p)->a->b->c->d
#define ___bpf_path5(p, a, b, c, d, e) (p)->a->b->c->d->e
#define ___bpf_path6(p, a, b, c, d, e, f) (p)->a->b->c->d->e->f
#define ___bpf_path7(p, a, b, c, d, e, f, g) (p)->a->b->c->d->e->f->g
#define ___bpf_path8(p, a, b, c, d, e, f, g, h) (p)->a->b->c->d->e->f->g->h
#define ___bpf_path9(p, a, b, c, d, e, f, g, h, i) (p)->a->b->c->d->e->f->g->h->i
#define ___bpf_path(p, fields...) ___bpf_apply(___bpf_path, ___bpf_narg(fields))(p, fields)

/* One step: the pointer in `p`'s field, in a variable whose scope lasts to the end of the walk; `read` is a bpf_core_read or a
 * bpf_probe_read. A step that fails leaves null, and the next one fails too. */
#define ___bpf_step(read, next, p, field)                                                                                        \
	typeof((p)->field) next;                                                                                                 \
	read((void *)&next, sizeof(next), &(p)->field)
#define ___bpf_walk1(read, last, dst, n, p, a) last((void *)(dst), n, &(p)->a);
#define ___bpf_walk2(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p2, p, a); ___bpf_walk1(read, last, dst, n, ___p2, more)
#define ___bpf_walk3(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p3, p, a); ___bpf_walk2(read, last, dst, n, ___p3, more)
#define ___bpf_walk4(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p4, p, a); ___bpf_walk3(read, last, dst, n, ___p4, more)
#define ___bpf_walk5(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p5, p, a); ___bpf_walk4(read, last, dst, n, ___p5, more)
#define ___bpf_walk6(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p6, p, a); ___bpf_walk5(read, last, dst, n, ___p6, more)
#define ___bpf_walk7(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p7, p, a); ___bpf_walk6(read, last, dst, n, ___p7, more)
#define ___bpf_walk8(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p8, p, a); ___bpf_walk7(read, last, dst, n, ___p8, more)
#define ___bpf_walk9(read, last, dst, n, p, a, more...)                                                                          \
	___bpf_step(read, ___p9, p, a); ___bpf_walk8(read, last, dst, n, ___p9, more)
#define ___bpf_walk(read, last, dst, n, p, fields...)                                                                            \
	({ ___bpf_apply(___bpf_walk, ___bpf_narg(fields))(read, last, dst, n, p, fields) })
#define ___bpf_value(read, p, fields...)                                                                                         \
	({                                                                                                                       \
		typeof(___bpf_path(p, fields)) ___value;                                                                         \
		___bpf_walk(read, read, &___value, sizeof(___value), p, fields);                                                 \
		___value;                                                                                                        \
	})

/* What the last field has, at most as much as there is room for. The result is the last helper's. */
#define BPF_CORE_READ_INTO(dst, src, fields...) ___bpf_walk(bpf_core_read, bpf_core_read, dst, sizeof(*(dst)), src, fields)
#define BPF_CORE_READ_USER_INTO(dst, src, fields...)                                                                             \
	___bpf_walk(bpf_core_read_user, bpf_core_read_user, dst, sizeof(*(dst)), src, fields)
#define BPF_PROBE_READ_INTO(dst, src, fields...)                                                                                 \
	___bpf_walk(bpf_probe_read_kernel, bpf_probe_read_kernel, dst, sizeof(*(dst)), src, fields)
#define BPF_PROBE_READ_USER_INTO(dst, src, fields...)                                                                            \
	___bpf_walk(bpf_probe_read_user, bpf_probe_read_user, dst, sizeof(*(dst)), src, fields)

/* The last field is a string. */
#define BPF_CORE_READ_STR_INTO(dst, src, fields...) ___bpf_walk(bpf_core_read, bpf_core_read_str, dst, sizeof(*(dst)), src, fields)
#define BPF_CORE_READ_USER_STR_INTO(dst, src, fields...)                                                                         \
	___bpf_walk(bpf_core_read_user, bpf_core_read_user_str, dst, sizeof(*(dst)), src, fields)
#define BPF_PROBE_READ_STR_INTO(dst, src, fields...)                                                                             \
	___bpf_walk(bpf_probe_read_kernel, bpf_probe_read_kernel_str, dst, sizeof(*(dst)), src, fields)
#define BPF_PROBE_READ_USER_STR_INTO(dst, src, fields...)                                                                        \
	___bpf_walk(bpf_probe_read_user, bpf_probe_read_user_str, dst, sizeof(*(dst)), src, fields)

/* The value of the last field. */
#define BPF_CORE_READ(src, fields...) ___bpf_value(bpf_core_read, src, fields)
#define BPF_CORE_READ_USER(src, fields...) ___bpf_value(bpf_core_read_user, src, fields)
#define BPF_PROBE_READ(src, fields...) ___bpf_value(bpf_probe_read_kernel, src, fields)
#define BPF_PROBE_READ_USER(src, fields...) ___bpf_value(bpf_probe_read_user, src, fields)

#endif
