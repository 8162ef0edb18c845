/* A security key in software, behind the interface through which OpenSSH speaks to real ones (PROTOCOL.u2f, API 10).
 * The key's handle is its seed; SK_HELPER, a program of the tests, makes keys and signatures. For tests only. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sk_enroll_response {
  uint8_t flags;
  uint8_t *public_key; size_t public_key_len;
  uint8_t *key_handle; size_t key_handle_len;
  uint8_t *signature; size_t signature_len;
  uint8_t *attestation_cert; size_t attestation_cert_len;
  uint8_t *authdata; size_t authdata_len;
};
struct sk_sign_response {
  uint8_t flags;
  uint32_t counter;
  uint8_t *sig_r; size_t sig_r_len;
  uint8_t *sig_s; size_t sig_s_len;
};
struct sk_option { char *name; char *value; uint8_t required; };
enum { FAILED = -1, ED25519 = 1 };

static void hex(char *out, const uint8_t *data, size_t size) {
  for (size_t at = 0; at < size; at++) sprintf(out + 2 * at, "%02x", data[at]);
}

static int ask(const char *words, uint8_t *answer, size_t size) {
  char line[8192];
  const char *helper = getenv("SK_HELPER");
  if (!helper || snprintf(line, sizeof line, "%s %s", helper, words) >= (int)sizeof line) return FAILED;
  FILE *pipe = popen(line, "r");
  if (!pipe) return FAILED;
  size_t got = fread(answer, 1, size, pipe);
  return pclose(pipe) == 0 && got == size ? 0 : FAILED;
}

static uint8_t *copy(const uint8_t *data, size_t size) {
  uint8_t *made = malloc(size ? size : 1);
  return made ? memcpy(made, data, size) : NULL;
}

uint32_t sk_api_version(void) { return 0x000a0000; }

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application, uint8_t flags,
              const char *pin, struct sk_option **options, struct sk_enroll_response **response) {
  uint8_t answer[64];
  if (alg != ED25519 || ask("enroll", answer, sizeof answer)) return FAILED;
  struct sk_enroll_response *made = calloc(1, sizeof *made);
  made->flags = flags;
  made->public_key = copy(answer, 32), made->public_key_len = 32;
  made->key_handle = copy(answer + 32, 32), made->key_handle_len = 32;
  made->signature = copy(answer, 0), made->attestation_cert = copy(answer, 0), made->authdata = copy(answer, 0);
  *response = made;
  return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application, const uint8_t *key_handle,
            size_t key_handle_len, uint8_t flags, const char *pin, struct sk_option **options,
            struct sk_sign_response **response) {
  char words[4096] = "sign ";
  uint8_t answer[69];
  if (alg != ED25519 || key_handle_len != 32 || data_len > 1024 || strlen(application) > 256) return FAILED;
  hex(words + strlen(words), (const uint8_t *)application, strlen(application));
  strcat(words, " "), hex(words + strlen(words), key_handle, key_handle_len);
  strcat(words, " "), hex(words + strlen(words), data, data_len);
  if (ask(words, answer, sizeof answer)) return FAILED;
  struct sk_sign_response *made = calloc(1, sizeof *made);
  made->flags = answer[0];
  made->counter = (uint32_t)answer[1] << 24 | answer[2] << 16 | answer[3] << 8 | answer[4];
  made->sig_r = copy(answer + 5, 64), made->sig_r_len = 64;
  *response = made;
  return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options, void ***keys, size_t *count) { return FAILED; }
