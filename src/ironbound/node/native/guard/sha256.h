/* SHA-256 (FIPS 180-4), over data that comes in parts. */
#ifndef SHA256_H
#define SHA256_H

typedef struct { u32 state[8]; u8 block[64]; u64 total; } sha256;

static inline u32 turned(u32 value, int by) { return value >> by | value << (32 - by); }

static void sha256_begin(sha256 *hash) {
    static const u32 first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, first, sizeof first);
    hash->total = 0;
}

static void sha256_block(u32 *state, const u8 *block) {
    static const u32 constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    u32 w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)block[4 * i] << 24 | (u32)block[4 * i + 1] << 16 | (u32)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        u32 low = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
        u32 high = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        u32 high = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25);
        u32 one = v[7] + high + ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants[i] + w[i];
        u32 low = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22);
        u32 two = low + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256_more(sha256 *hash, const u8 *data, u64 size) {
    while (size--) {
        hash->block[hash->total++ % 64] = *data++;
        if (hash->total % 64 == 0) sha256_block(hash->state, hash->block);
    }
}

/* The digest as 64 lower-case hexadecimal digits and a NUL. */
static void sha256_end(sha256 *hash, char *hex) {
    static const u8 zero = 0, one = 0x80;
    u64 bits = hash->total * 8;
    sha256_more(hash, &one, 1);
    while (hash->total % 64 != 56) sha256_more(hash, &zero, 1);
    for (int shift = 56; shift >= 0; shift -= 8) {
        u8 part = (u8)(bits >> shift);
        sha256_more(hash, &part, 1);
    }
    for (int i = 0; i < 64; i++) hex[i] = "0123456789abcdef"[hash->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = 0;
}

#endif
