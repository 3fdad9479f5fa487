/* Options of a kernel's configuration, in every type that they may have (test_kernel_externs.py). */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

extern int CONFIG_HZ __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig;
extern char CONFIG_MODULES __kconfig;
extern enum libbpf_tristate CONFIG_EXT4_FS __kconfig;
extern char CONFIG_DEFAULT_HOSTNAME[8] __kconfig;
extern unsigned long CONFIG_ILLEGAL_POINTER_VALUE __kconfig;
extern u8 CONFIG_NR_CPUS __kconfig __weak;
extern bool CONFIG_NO_SUCH_THING __kconfig __weak;
extern bool LINUX_HAS_SYSCALL_WRAPPER __kconfig;
extern int LINUX_HAS_BPF_COOKIE __kconfig;
extern int LINUX_HAS_TIME_MACHINE __kconfig __weak;

int seen_hz, cookie, machine;
bool seen_bpf, wrapper, thing;
char seen_modules, hostname[8];
enum libbpf_tristate seen_ext4;
unsigned long poison;

SEC("raw_tp/sys_enter") int options(void *ctx)
{
	seen_hz = CONFIG_HZ;
	seen_bpf = CONFIG_BPF_SYSCALL;
	seen_modules = CONFIG_MODULES;
	seen_ext4 = CONFIG_EXT4_FS;
	poison = CONFIG_ILLEGAL_POINTER_VALUE;
	for (int i = 0; i < 8; i++)
		hostname[i] = CONFIG_DEFAULT_HOSTNAME[i];
	thing = CONFIG_NO_SUCH_THING;
	wrapper = LINUX_HAS_SYSCALL_WRAPPER;
	cookie = LINUX_HAS_BPF_COOKIE;
	machine = LINUX_HAS_TIME_MACHINE;
	return 0;
}

SEC("?raw_tp/sys_enter") int narrow(void *ctx) { return CONFIG_NR_CPUS; }
