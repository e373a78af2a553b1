/* The opening handshake (RFC 6455, section 4): what a client's head must say, and what it is answered with. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/crypto/crypto.h"
#include "common/ws/ws.h"

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* section 1.3 */

/* A list of tokens with commas between them. */
static bool has_token(const char *list, const char *token, bool any_case) {
  size_t len = strlen(token);
  while (list && *list) {
    list += strspn(list, " \t,");
    size_t n = strcspn(list, ",");
    size_t used = n;
    while (used && (list[used - 1] == ' ' || list[used - 1] == '\t'))
      used--;
    if (used == len && (any_case ? strncasecmp(list, token, len) : strncmp(list, token, len)) == 0)
      return true;
    list += n;
  }
  return false;
}

/* A browser tells whose page asks: only the API's own may. "null", or a scheme that is not the web's, is nobody's. */
static bool is_own(const char *origin, const char *host) {
  if (strncmp(origin, "https://", 8) == 0)
    return host && *host && strcasecmp(origin + 8, host) == 0;
  return strncmp(origin, "http://", 7) == 0 && host && *host && strcasecmp(origin + 7, host) == 0;
}

void ws_accept_of(const char *key, char accept[WS_ACCEPT_LEN + 1]) {
  char text[WS_KEY_LEN + sizeof GUID];
  uint8_t hash[EVP_MAX_MD_SIZE] = {0};
  int len = snprintf(text, sizeof text, "%.*s%s", WS_KEY_LEN, key, GUID);
  EVP_Digest(text, (size_t)len, hash, NULL, EVP_sha1(), NULL);
  crypto_base64(hash, 20, accept);
}

int ws_new_key(char key[WS_KEY_LEN + 1], struct err *err) {
  uint8_t bytes[16];
  if (crypto_random(bytes, sizeof bytes, err) < 0)
    return -1;
  crypto_base64(bytes, sizeof bytes, key);
  return 0;
}

int ws_accept(const struct ws_offer *o, const char *protocol, char accept[WS_ACCEPT_LEN + 1], struct err *err) {
  uint8_t bytes[16];
  size_t len;
  if (!has_token(o->upgrade, "websocket", true) || !has_token(o->connection, "upgrade", true))
    return err_set(err, ERR_UNSUPPORTED, "this is a WebSocket: Connection: Upgrade, Upgrade: websocket, Sec-WebSocket-Protocol: %s", protocol);
  if (!o->version || strcmp(o->version, "13") != 0)
    return err_set(err, ERR_UNSUPPORTED, "Sec-WebSocket-Version: want 13");
  if (o->origin && !is_own(o->origin, o->host))
    return err_set(err, ERR_DENIED, "Origin: pages of other sites may not come in");
  if (!o->key || strlen(o->key) != WS_KEY_LEN || crypto_from_base64(o->key, WS_KEY_LEN, bytes, sizeof bytes, &len) < 0 || len != sizeof bytes)
    return err_set(err, ERR_INVALID, "Sec-WebSocket-Key: want 16 bytes in base64");
  if (!has_token(o->protocols, protocol, false))
    return err_set(err, ERR_INVALID, "Sec-WebSocket-Protocol: want %s", protocol);
  ws_accept_of(o->key, accept);
  return 0;
}
