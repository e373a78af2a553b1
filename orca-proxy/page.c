#include "orca-proxy/page.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"

const char *page_reason(unsigned status) {
  switch (status) {
  case 400:
    return "Bad Request";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 408:
    return "Request Timeout";
  case 413:
    return "Content Too Large";
  case 417:
    return "Expectation Failed";
  case 431:
    return "Request Header Fields Too Large";
  case 500:
    return "Internal Server Error";
  case 501:
    return "Not Implemented";
  case 502:
    return "Bad Gateway";
  case 503:
    return "Service Unavailable";
  case 504:
    return "Gateway Timeout";
  case 505:
    return "HTTP Version Not Supported";
  default:
    return "Error";
  }
}

static void escaped(struct buf *b, const char *s, bool html) {
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c < 0x20 || c >= 0x7f)
      buf_add_byte(b, '?');
    else if (html && (c == '<' || c == '>' || c == '&' || c == '"'))
      buf_printf(b, "&#%d;", c);
    else if (!html && (c == '"' || c == '\\')) {
      buf_add_byte(b, '\\');
      buf_add_byte(b, c);
    } else
      buf_add_byte(b, c);
  }
}

enum form { TEXT, HTML, JSON };

/* The first of the types that the client names that we can make. */
static enum form choose(struct span accept) {
  struct span token;
  while (accept.len && head_next_token(&accept, &token)) {
    const uint8_t *semicolon = memchr(token.at, ';', token.len);
    if (semicolon)
      token.len = (size_t)(semicolon - token.at);
    if (token.len > 5 && (span_is_nocase(token, "application/json") || span_is_nocase((struct span){token.at + token.len - 5, 5}, "+json")))
      return JSON;
    if (span_is_nocase(token, "text/html") || span_is_nocase(token, "application/xhtml+xml"))
      return HTML;
  }
  return TEXT;
}

size_t page_write(uint8_t out[PAGE_MAX], unsigned status, const char *detail, const char *node, struct span accept, bool to_head, bool keep_alive) {
  static const char *const types[] = {[TEXT] = "text/plain", [HTML] = "text/html", [JSON] = "application/json"};
  enum form form = choose(accept);
  struct buf body = BUF_INIT(PAGE_MAX - 512);
  const char *reason = page_reason(status);
  char short_detail[257];
  snprintf(short_detail, sizeof short_detail, "%s", detail);
  switch (form) {
  case TEXT:
    buf_printf(&body, "%u %s: ", status, reason);
    escaped(&body, short_detail, false);
    buf_printf(&body, " (orca-proxy on %s)\n", node);
    break;
  case HTML:
    buf_printf(&body,
               "<!doctype html><html><head><meta charset=\"utf-8\"><title>%u %s</title></head>"
               "<body style=\"font-family:sans-serif;margin:4em auto;max-width:34em\"><h1>%u %s</h1><p>",
               status, reason, status, reason);
    escaped(&body, short_detail, true);
    buf_add_str(&body, "</p><hr><small>orca-proxy on ");
    escaped(&body, node, true);
    buf_add_str(&body, "</small></body></html>\n");
    break;
  case JSON:
    buf_printf(&body, "{\"status\":%u,\"error\":\"%s\",\"message\":\"", status, reason);
    escaped(&body, short_detail, false);
    buf_add_str(&body, "\",\"by\":\"orca-proxy\",\"node\":\"");
    escaped(&body, node, false);
    buf_add_str(&body, "\"}\n");
    break;
  }
  int n = snprintf(
      (char *)out, PAGE_MAX,
      "HTTP/1.1 %u %s\r\nServer: orca-proxy\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n%s%s\r\n%s",
      status, reason, types[form], body.len, status == 503 ? "Retry-After: 1\r\n" : "", keep_alive ? "" : "Connection: close\r\n",
      to_head ? "" : buf_str(&body));
  buf_free(&body);
  return n > 0 && (size_t)n < PAGE_MAX ? (size_t)n : 0;
}
