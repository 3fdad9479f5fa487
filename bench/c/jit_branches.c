/* Branches and switches: predictable, unpredictable, dense, sparse, a small interpreter. */
#include "bench.h"

ENTRY(predictable)
{
	u64 sum = 0;

	for (u64 i = 0; i < len; i++) {
		if (i & 1)
			sum += i;
		else if (i & 2)
			sum ^= i << 3;
		else
			sum -= i >> 1;
	}
	return sum;
}

ENTRY(classify)
{
	const u8 *text = mem;
	u64 letters = 0, digits = 0, spaces = 0, others = 0;

	for (u64 i = 0; i < len; i++) {
		u8 c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
			letters++;
		else if (c >= '0' && c <= '9')
			digits += c - '0';
		else if (c == ' ' || c == '\n' || c == '\t')
			spaces += i;
		else
			others++;
	}
	return letters + (digits << 16) + (spaces << 24) + (others << 40);
}

ENTRY(dense_switch)
{
	const u8 *op = mem;
	u64 acc = len;

	for (u64 i = 0; i < len; i++) {
		switch (op[i] & 15) {
		case 0: acc += 3; break;
		case 1: acc ^= acc >> 7; break;
		case 2: acc *= 5; break;
		case 3: acc -= i; break;
		case 4: acc = (acc << 3) | (acc >> 61); break;
		case 5: acc |= 0x10; break;
		case 6: acc &= ~0x100ull; break;
		case 7: acc += acc << 1; break;
		case 8: acc ^= 0x5a5a; break;
		case 9: acc = ~acc; break;
		case 10: acc -= acc >> 3; break;
		case 11: acc += op[i]; break;
		case 12: acc ^= i << 9; break;
		case 13: acc = -acc; break;
		case 14: acc += 0xffff; break;
		default: acc ^= acc << 11; break;
		}
	}
	return acc;
}

ENTRY(sparse_switch)
{
	const u8 *op = mem;
	u64 acc = 0;

	for (u64 i = 0; i + 1 < len; i++) {
		switch ((u32)UNALIGNED(u16, op + i) % 1009) {
		case 3: acc += 1; break;
		case 59: acc ^= 7; break;
		case 60: acc += 3; break;
		case 202: acc -= 9; break;
		case 257: acc += 5; break;
		case 435: acc ^= 11; break;
		case 701: acc += 13; break;
		case 999: acc *= 3; break;
		default: acc++; break;
		}
	}
	return acc;
}

/* A register machine: byte code in memory, a counted loop around it. */
ENTRY(interpreter)
{
	const u8 *code = mem;
	u64 a = 1, b = len, pc = 0;

	for (u64 steps = 0; steps < len * 4; steps++) {
		u8 insn = code[pc];

		switch (insn >> 5) {
		case 0: a += insn & 31; break;
		case 1: b ^= a; break;
		case 2: a = (a >> 1) + b; break;
		case 3: b += (insn & 31) << 2; break;
		case 4: if (a & 1) pc += 1; break;
		case 5: { u64 t = a; a = b; b = t; break; }
		case 6: a -= b; break;
		default: b = (b << 5) | (b >> 59); break;
		}
		pc++;
		if (pc >= len)
			pc = 0;
	}
	return a ^ b;
}

ENTRY(binary_search)
{
	const u32 *sorted = mem; /* the first half is a rising table */
	u64 n = len / 8, found = 0;

	for (u64 i = 0; i < n; i++) {
		u32 key = (u32)(i * 2654435761u) % (u32)(n * 16 + 1);
		u64 low = 0, high = n;

		while (low < high) {
			u64 middle = (low + high) / 2;

			if (sorted[middle] < key)
				low = middle + 1;
			else
				high = middle;
		}
		found += low;
	}
	return found;
}
