/* A unified diff of two specs in TOML form. */
#include "common/spec/spec.h"

#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

#define CONTEXT 3
#define LINES_MAX 4000 /* above it: everything out, everything in */

struct lines {
  struct buf text;
  char **at;
  size_t count;
};

static int split(const Model__ServiceSpec *spec, struct lines *l) {
  l->text = BUF_INIT(16u << 20);
  if (spec && spec_service_to_toml(spec, &l->text) < 0)
    return -1;
  size_t count = 0;
  for (size_t i = 0; i < l->text.len; i++)
    count += l->text.data[i] == '\n';
  l->at = calloc(count + 1, sizeof *l->at);
  if (!l->at)
    return -1;
  for (char *s = (char *)l->text.data; l->count < count; l->count++) {
    char *end = strchr(s, '\n');
    *end = 0;
    l->at[l->count] = s;
    s = end + 1;
  }
  return 0;
}

struct step {
  char sign; /* ' ', '-', '+' */
  const char *line;
};

/* The longest common subsequence, by the classic table: specs are short. */
static struct step *steps(const struct lines *a, const struct lines *b, size_t *ret_count) {
  size_t n = a->count, m = b->count, w = m + 1;
  bool table = n <= LINES_MAX && m <= LINES_MAX;
  uint16_t *len = table ? calloc((n + 1) * w, sizeof *len) : NULL;
  struct step *out = calloc(n + m + 1, sizeof *out);
  size_t count = 0, i = 0, j = 0;
  if (!out || (table && !len)) {
    free(len);
    free(out);
    return NULL;
  }
  for (size_t x = n; table && x-- > 0;)
    for (size_t y = m; y-- > 0;) {
      uint16_t down = len[(x + 1) * w + y], right = len[x * w + y + 1];
      len[x * w + y] = strcmp(a->at[x], b->at[y]) == 0 ? (uint16_t)(len[(x + 1) * w + y + 1] + 1) : down > right ? down : right;
    }
  while (i < n || j < m) {
    if (table && i < n && j < m && strcmp(a->at[i], b->at[j]) == 0) {
      out[count++] = (struct step){' ', a->at[i++]};
      j++;
    } else if (i < n && (j == m || !table || len[(i + 1) * w + j] >= len[i * w + j + 1])) {
      out[count++] = (struct step){'-', a->at[i++]};
    } else {
      out[count++] = (struct step){'+', b->at[j++]};
    }
  }
  free(len);
  *ret_count = count;
  return out;
}

static void print_hunks(const struct step *s, size_t count, struct buf *out) {
  size_t a = 0, b = 0, done = 0; /* lines of either side before `done` */
  for (size_t i = 0; i < count;) {
    while (i < count && s[i].sign == ' ')
      i++;
    if (i == count)
      return;
    size_t from = i - done > CONTEXT ? i - CONTEXT : done, to = i, quiet = 0;
    for (size_t k = i; k < count && quiet <= 2 * CONTEXT; k++) {
      quiet = s[k].sign == ' ' ? quiet + 1 : 0;
      if (!quiet)
        to = k + 1;
    }
    to = to + CONTEXT < count ? to + CONTEXT : count;
    for (; done < from; done++)
      a++, b++;
    size_t a_len = 0, b_len = 0;
    for (size_t k = from; k < to; k++) {
      a_len += s[k].sign != '+';
      b_len += s[k].sign != '-';
    }
    buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", a_len ? a + 1 : a, a_len, b_len ? b + 1 : b, b_len);
    for (size_t k = from; k < to; k++)
      buf_printf(out, "%c%s\n", s[k].sign, s[k].line);
    a += a_len;
    b += b_len;
    i = done = to;
  }
}

int spec_diff(const Model__ServiceSpec *from, const Model__ServiceSpec *to, struct buf *out) {
  struct lines a = {0}, b = {0};
  struct step *s = NULL;
  size_t count = 0;
  int rc = -1;
  if (split(from, &a) == 0 && split(to, &b) == 0 && (s = steps(&a, &b, &count))) {
    bool differs = false;
    for (size_t i = 0; i < count; i++)
      differs |= s[i].sign != ' ';
    if (differs) {
      const Model__ServiceSpec *named = to ? to : from;
      buf_printf(out, "--- %s/%s as deployed\n+++ %s/%s as written\n", PB_STR(named->project), PB_STR(named->name), PB_STR(named->project),
                 PB_STR(named->name));
      print_hunks(s, count, out);
    }
    rc = buf_failed(out) ? -1 : 0;
  }
  free(s);
  free(a.at);
  free(b.at);
  buf_free(&a.text);
  buf_free(&b.text);
  return rc;
}
