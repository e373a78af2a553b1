/* Anything as X-Forwarded-For, which a client may begin and its proxy ends. First byte: the peer. What comes out is short, printable, and never
 * local. */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "orca-apiserver/from.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct api_from from;
  if (size < 1)
    return 0;
  char *text = strndup((const char *)data + 1, size - 1);
  if (!text)
    return 0;
  in.sin_addr.s_addr = htonl(data[0] & 1 ? 0x7f000001 : 0x0a000007);
  api_from_make(data[0] & 2 ? (const struct sockaddr *)(const void *)&in6 : (const struct sockaddr *)(const void *)&in, text, data[0] & 4, &from);
  if (from.local || strlen(from.text) >= sizeof from.text)
    abort();
  for (const char *p = from.text; *p; p++)
    if (*p < ' ' || *p >= 0x7f)
      abort();
  free(text);
  return 0;
}
