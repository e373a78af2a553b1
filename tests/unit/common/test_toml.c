/* TOML 1.0.0, by table: documents with the tree they make, and documents with the place and kind of their first fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "common/toml/toml.h"

struct valid {
  const char *text, *tree; /* the root as one inline table */
};

static const struct valid valids[] = {
    /* documents and lines */
    {"", "{}"},
    {"\n\n", "{}"},
    {"\r\n", "{}"},
    {"   \t ", "{}"},
    {"# only a comment", "{}"},
    {"# tab\there, é 日本", "{}"},
    {"\xef\xbb\xbf"
     "a = 1",
     "{ a = 1 }"},
    {"a = 1", "{ a = 1 }"},
    {"a = 1\r\nb = 2\r\n", "{ a = 1, b = 2 }"},
    {"a=1#x", "{ a = 1 }"},
    {"  a\t=\t1 # x\n", "{ a = 1 }"},
    /* keys */
    {"A-b_9 = 1", "{ A-b_9 = 1 }"},
    {"1234 = 1", "{ 1234 = 1 }"},
    {"- = 1", "{ - = 1 }"},
    {"\"a b\" = 1", "{ \"a b\" = 1 }"},
    {"'a\"b' = 1", "{ \"a\\\"b\" = 1 }"},
    {"\"\" = 1", "{ \"\" = 1 }"},
    {"'' = 1", "{ \"\" = 1 }"},
    {"\"\\u00e9\" = 1", "{ \"é\" = 1 }"},
    {"\"a.b\" = 1", "{ \"a.b\" = 1 }"},
    {"a.b.c = 1", "{ a = { b = { c = 1 } } }"},
    {"a . b\t.c = 1", "{ a = { b = { c = 1 } } }"},
    {"a.\"b.c\".'d' = 1", "{ a = { \"b.c\" = { d = 1 } } }"},
    {"3.14 = 1", "{ 3 = { 14 = 1 } }"},
    {"a.x = 1\nb = 2\na.y = 3", "{ a = { x = 1, y = 3 }, b = 2 }"},
    {"true = false", "{ true = false }"},
    {"inf = nan", "{ inf = nan }"},
    {"2020-01-01 = 1", "{ 2020-01-01 = 1 }"},
    {"a = 1\nA = 2", "{ a = 1, A = 2 }"},
    /* integers */
    {"a = 0", "{ a = 0 }"},
    {"a = +0", "{ a = 0 }"},
    {"a = -0", "{ a = 0 }"},
    {"a = +99", "{ a = 99 }"},
    {"a = -17", "{ a = -17 }"},
    {"a = 1_000_000", "{ a = 1000000 }"},
    {"a = 1_2_3", "{ a = 123 }"},
    {"a = 9223372036854775807", "{ a = 9223372036854775807 }"},
    {"a = -9223372036854775808", "{ a = -9223372036854775808 }"},
    {"a = 0xDEADbeef", "{ a = 3735928559 }"},
    {"a = 0x00_ff", "{ a = 255 }"},
    {"a = 0x7fffffffffffffff", "{ a = 9223372036854775807 }"},
    {"a = 0o755", "{ a = 493 }"},
    {"a = 0b1101_0110", "{ a = 214 }"},
    {"a = 0xe1", "{ a = 225 }"},
    /* floats */
    {"a = 1.0", "{ a = 1.0 }"},
    {"a = 3.1415", "{ a = 3.1415 }"},
    {"a = -0.01", "{ a = -0.01 }"},
    {"a = 5e+22", "{ a = 5e+22 }"},
    {"a = 1e06", "{ a = 1e+06 }"},
    {"a = -2E-2", "{ a = -0.02 }"},
    {"a = 6.626e-34", "{ a = 6.626e-34 }"},
    {"a = 224_617.445_991_228", "{ a = 224617.445991228 }"},
    {"a = 1e1_0", "{ a = 1e+10 }"},
    {"a = 0e0", "{ a = 0.0 }"},
    {"a = -0.0", "{ a = -0.0 }"},
    {"a = inf", "{ a = inf }"},
    {"a = +inf", "{ a = inf }"},
    {"a = -inf", "{ a = -inf }"},
    {"a = nan", "{ a = nan }"},
    {"a = -nan", "{ a = nan }"},
    {"a = 0.1", "{ a = 0.1 }"},
    /* booleans */
    {"a = true\nb = false", "{ a = true, b = false }"},
    /* date-times */
    {"a = 1979-05-27T07:32:00Z", "{ a = 1979-05-27T07:32:00Z }"},
    {"a = 1979-05-27t07:32:00z", "{ a = 1979-05-27T07:32:00Z }"},
    {"a = 1979-05-27 07:32:00Z", "{ a = 1979-05-27T07:32:00Z }"},
    {"a = 1979-05-27T00:32:00-07:00", "{ a = 1979-05-27T00:32:00-07:00 }"},
    {"a = 1979-05-27T00:32:00.999999-00:30", "{ a = 1979-05-27T00:32:00.999999-00:30 }"},
    {"a = 1979-05-27T00:32:00+23:59", "{ a = 1979-05-27T00:32:00+23:59 }"},
    {"a = 1979-05-27T07:32:00", "{ a = 1979-05-27T07:32:00 }"},
    {"a = 1979-05-27 07:32:00.5 # c", "{ a = 1979-05-27T07:32:00.500 }"},
    {"a = 1979-05-27", "{ a = 1979-05-27 }"},
    {"a = 1979-05-27 # date", "{ a = 1979-05-27 }"},
    {"a = 07:32:00", "{ a = 07:32:00 }"},
    {"a = 00:32:00.123456789123", "{ a = 00:32:00.123456789 }"},
    {"a = 2000-02-29", "{ a = 2000-02-29 }"},
    {"a = 2024-02-29", "{ a = 2024-02-29 }"},
    {"a = 0000-01-01", "{ a = 0000-01-01 }"},
    {"a = 23:59:60", "{ a = 23:59:60 }"},
    {"a = [1979-05-27, 07:32:00]", "{ a = [1979-05-27, 07:32:00] }"},
    /* basic strings */
    {"a = \"\"", "{ a = \"\" }"},
    {"a = \"x # y\" # z", "{ a = \"x # y\" }"},
    {"a = \"\\b\\t\\n\\f\\r\\\"\\\\\"", "{ a = \"\\b\\t\\n\\f\\r\\\"\\\\\" }"},
    {"a = \"\\u0041\\U0001F600\"", "{ a = \"A😀\" }"},
    {"a = \"\\u0000\"", "{ a = \"\\u0000\" }"},
    {"a = \"tab\there\"", "{ a = \"tab\\there\" }"},
    {"a = \"\\uD7FF\\uE000\"", "{ a = \"\xed\x9f\xbf\xee\x80\x80\" }"},
    /* literal strings */
    {"a = 'C:\\x\\n'", "{ a = \"C:\\\\x\\\\n\" }"},
    {"a = '\"'", "{ a = \"\\\"\" }"},
    {"a = ''", "{ a = \"\" }"},
    /* multi-line strings */
    {"a = \"\"\"\"\"\"", "{ a = \"\" }"},
    {"a = \"\"\"\nx\ny\"\"\"", "{ a = \"x\\ny\" }"},
    {"a = \"\"\"\r\nx\r\ny\"\"\"", "{ a = \"x\\ny\" }"},
    {"a = \"\"\"\\\n   x \\\n\n\n  y\\\n \"\"\"", "{ a = \"x y\" }"},
    {"a = \"\"\"x \\   \n y\"\"\"", "{ a = \"x y\" }"},
    {"a = \"\"\"x\\\\\ny\"\"\"", "{ a = \"x\\\\\\ny\" }"},
    {"a = \"\"\"one \" two \"\" end\"\"\"", "{ a = \"one \\\" two \\\"\\\" end\" }"},
    {"a = \"\"\"x\"\"\"\"", "{ a = \"x\\\"\" }"},
    {"a = \"\"\"x\"\"\"\"\"", "{ a = \"x\\\"\\\"\" }"},
    {"a = \"\"\"\"\"x\"\"\"", "{ a = \"\\\"\\\"x\" }"},
    {"a = \"\"\"\\\"\"\"\\\"\"\"\"", "{ a = \"\\\"\\\"\\\"\\\"\" }"},
    {"a = ''''''", "{ a = \"\" }"},
    {"a = '''\nx\n'y'''", "{ a = \"x\\n'y\" }"},
    {"a = '''x'''''", "{ a = \"x''\" }"},
    {"a = '''\\\n'''", "{ a = \"\\\\\\n\" }"},
    /* arrays */
    {"a = []", "{ a = [] }"},
    {"a = [1,2,]", "{ a = [1, 2] }"},
    {"a = [ 1 , \"x\", 2.5, [true], {b = 1} ]", "{ a = [1, \"x\", 2.5, [true], { b = 1 }] }"},
    {"a = [\n 1, # one\n\n # two\n 2\n ,\n]", "{ a = [1, 2] }"},
    {"a = [[],[[]]]", "{ a = [[], [[]]] }"},
    {"a = [\n# x\n]", "{ a = [] }"},
    {"a = [\"\"\"x\ny\"\"\", '''z''']", "{ a = [\"x\\ny\", \"z\"] }"},
    /* inline tables */
    {"a = {}", "{ a = {} }"},
    {"a = { }", "{ a = {} }"},
    {"a = {b=1,c.d=2,c.e=3}", "{ a = { b = 1, c = { d = 2, e = 3 } } }"},
    {"a = {b = [\n1,\n2\n], c = 3}", "{ a = { b = [1, 2], c = 3 } }"},
    {"a = { \"b c\" = { d = {} } }", "{ a = { \"b c\" = { d = {} } } }"},
    {"a = {b = \"\"\"x\ny\"\"\"}", "{ a = { b = \"x\\ny\" } }"},
    /* tables */
    {"[a]", "{ a = {} }"},
    {"[a]\n[b]\nx = 1", "{ a = {}, b = { x = 1 } }"},
    {"[ a . 'b c' . \"d\" ] # x", "{ a = { \"b c\" = { d = {} } } }"},
    {"[a.b.c]\nx = 1\n[a]\ny = 2", "{ a = { b = { c = { x = 1 } }, y = 2 } }"},
    {"[a.b]\n[a.c]\n[a]", "{ a = { b = {}, c = {} } }"},
    {"[\"\"]\nx = 1", "{ \"\" = { x = 1 } }"},
    {"[a]\nb.c = 1\nb.d = 2\n[a.b.e]\nx = 1", "{ a = { b = { c = 1, d = 2, e = { x = 1 } } } }"},
    {"a.b = 1\n[a.c]\nx = 1", "{ a = { b = 1, c = { x = 1 } } }"},
    {"[a.b.c]\n[a]\nb.d = 1", "{ a = { b = { c = {}, d = 1 } } }"},
    {"x = 1\n[x-y]\nx = 2", "{ x = 1, x-y = { x = 2 } }"},
    /* arrays of tables */
    {"[[a]]", "{ a = [{}] }"},
    {"[[a]]\nx = 1\n[[a]]\nx = 2", "{ a = [{ x = 1 }, { x = 2 }] }"},
    {"[[a]]\n[a.b]\nx = 1\n[[a]]\n[a.b]\nx = 2", "{ a = [{ b = { x = 1 } }, { b = { x = 2 } }] }"},
    {"[[a]]\n[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n[[a]]\n[[a.b]]", "{ a = [{ b = [{ x = 1 }, { x = 2 }] }, { b = [{}] }] }"},
    {"[[a.b]]\nx = 1\n[a]\ny = 2", "{ a = { b = [{ x = 1 }], y = 2 } }"},
    {"[[ a . b ]]", "{ a = { b = [{}] } }"},
    {"[a]\n[[a.b]]\n[a.b.c]\n[[a.b]]", "{ a = { b = [{ c = {} }, {}] } }"},
};

struct invalid {
  const char *text;
  unsigned line, column;
  const char *message; /* part of it */
};

static const struct invalid invalids[] = {
    /* encoding and control characters */
    {"a = \"\xff\"", 1, 6, "0xFF is not UTF-8"},
    {"# \xc0\x80", 1, 3, "not UTF-8"},
    {"# \xed\xa0\x80", 1, 3, "not UTF-8"},
    {"# \xf4\x90\x80\x80", 1, 3, "not UTF-8"},
    {"# \xe2\x82", 1, 3, "not UTF-8"},
    {"a = 1\nb = \"é\xfe\"", 2, 7, "0xFE is not UTF-8"},
    {"\xff\xfe"
     "a\0",
     1, 1, "not UTF-8"},
    {"a = 1 \xef\xbb\xbf", 1, 7, "expected the end of the line"},
    {"# \x01", 1, 3, "control character U+0001 in a comment"},
    {"# \x7f", 1, 3, "U+007F"},
    {"# x\ry", 1, 4, "carriage return"},
    {"a = 1\rb = 2", 1, 6, "expected the end of the line"},
    {"a = \"x\x1f\"", 1, 7, "U+001F in a string"},
    {"a = 'x\x08'", 1, 7, "U+0008"},
    {"a = \"\"\"x\ry\"\"\"", 1, 9, "carriage return"},
    {"a = '''x\x7fy'''", 1, 9, "U+007F"},
    {"\x0b", 1, 1, "U+000B"},
    /* lines and keys */
    {"a", 1, 2, "expected ="},
    {"a =", 1, 4, "value is missing"},
    {"a = # x", 1, 5, "value is missing"},
    {"a\n= 1", 1, 2, "expected ="},
    {"a =\n1", 1, 4, "value is missing"},
    {"= 1", 1, 1, "expected a key"},
    {"a = 1 b = 2", 1, 7, "expected the end of the line"},
    {"a = 1, b = 2", 1, 6, "expected the end of the line"},
    {"a b = 1", 1, 3, "expected ="},
    {"a. = 1", 1, 4, "expected a key"},
    {".a = 1", 1, 1, "expected a key"},
    {"a..b = 1", 1, 3, "expected a key"},
    {"a.\n", 1, 3, "key is missing"},
    {"\"\"\"a\"\"\" = 1", 1, 1, "multi-line"},
    {"'''a''' = 1", 1, 1, "multi-line"},
    {"\"a\nb\" = 1", 1, 1, "without its closing"},
    {"é = 1", 1, 1, "expected a key"},
    {"a@b = 1", 1, 2, "expected ="},
    {"\"a\"b = 1", 1, 4, "expected ="},
    {"a = 1\na = 2", 2, 1, "`a` is defined already, in line 1"},
    {"a = 1\n\"a\" = 2", 2, 1, "defined already"},
    {"a = 1\na.b = 2", 2, 1, "defined already"},
    {"a.b = 1\na = 2", 2, 1, "defined already"},
    {"a.b = 1\na.b.c = 2", 2, 3, "defined already"},
    {"a == 1", 1, 4, "expected a value"},
    {"a = = 1", 1, 5, "expected a value"},
    {"a := 1", 1, 3, "expected ="},
    /* numbers */
    {"a = 01", 1, 5, "`01` is not a number"},
    {"a = -01", 1, 5, "not a number"},
    {"a = +00", 1, 5, "not a number"},
    {"a = 1__0", 1, 5, "not a number"},
    {"a = _1", 1, 5, "not a value"},
    {"a = 1_", 1, 5, "not a number"},
    {"a = ++1", 1, 5, "not a value"},
    {"a = +", 1, 5, "not a value"},
    {"a = -", 1, 5, "not a value"},
    {"a = 0X1f", 1, 5, "not a number"},
    {"a = 0x", 1, 5, "not a number"},
    {"a = 0x_1", 1, 5, "not a number"},
    {"a = 0x1_", 1, 5, "not a number"},
    {"a = +0x1", 1, 5, "not a number"},
    {"a = -0b1", 1, 5, "not a number"},
    {"a = 0o8", 1, 5, "not a number"},
    {"a = 0b2", 1, 5, "not a number"},
    {"a = 0xg", 1, 5, "not a number"},
    {"a = 9223372036854775808", 1, 5, "64 bits"},
    {"a = -9223372036854775809", 1, 5, "64 bits"},
    {"a = 0xffffffffffffffff", 1, 5, "64 bits"},
    {"a = 1a", 1, 5, "not a number"},
    {"a = 1 2", 1, 7, "expected the end of the line"},
    {"a = .5", 1, 5, "not a number"},
    {"a = 5.", 1, 5, "not a number"},
    {"a = 5.e1", 1, 5, "not a number"},
    {"a = 1e", 1, 5, "not a number"},
    {"a = 1e+", 1, 5, "not a number"},
    {"a = 1e1.0", 1, 5, "not a number"},
    {"a = 1.2.3", 1, 5, "not a number"},
    {"a = 1._2", 1, 5, "not a number"},
    {"a = 1_.2", 1, 5, "not a number"},
    {"a = 1.2_", 1, 5, "not a number"},
    {"a = 1e_2", 1, 5, "not a number"},
    {"a = 01.5", 1, 5, "not a number"},
    {"a = Inf", 1, 5, "not a value"},
    {"a = NaN", 1, 5, "not a value"},
    {"a = infinity", 1, 5, "not a value"},
    /* words */
    {"a = True", 1, 5, "not a value"},
    {"a = truefalse", 1, 5, "not a value"},
    {"a = yes", 1, 5, "strings stand in quotes"},
    {"a = hello world", 1, 5, "strings stand in quotes"},
    {"a = null", 1, 5, "not a value"},
    /* date-times */
    {"a = 2021-13-01", 1, 5, "not a valid date"},
    {"a = 2021-00-01", 1, 5, "not a valid date"},
    {"a = 2021-02-29", 1, 5, "not a valid date"},
    {"a = 1900-02-29", 1, 5, "not a valid date"},
    {"a = 2021-04-31", 1, 5, "not a valid date"},
    {"a = 2021-1-01", 1, 5, "not a valid date"},
    {"a = 2021-01-1", 1, 5, "not a valid date"},
    {"a = 2021-01-01T", 1, 5, "not a valid date"},
    {"a = 2021-01-01T25:00:00Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T24:00:00Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:60:00Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00:61Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00:00.Z", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00:00+24:00", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00:00+01:60", 1, 5, "not a valid date"},
    {"a = 2021-01-01T00:00:00+0100", 1, 5, "not a valid date"},
    {"a = 2021-01-01x00:00:00", 1, 5, "not a valid date"},
    {"a = 2021-01-01  00:00:00", 1, 17, "expected the end of the line"},
    {"a = 7:00:00", 1, 5, "not a number"},
    {"a = 07:00", 1, 5, "not a valid time"},
    {"a = 07:00:00Z", 1, 5, "not a valid time"},
    {"a = 24:00:00", 1, 5, "not a valid time"},
    {"a = 20211-01-01", 1, 5, "not a number"},
    /* strings */
    {"a = \"x", 1, 5, "without its closing"},
    {"a = \"x\ny\"", 1, 5, "without its closing"},
    {"a = 'x", 1, 5, "without its closing"},
    {"a = \"\"\"x\n\n", 1, 5, "without its closing \"\"\""},
    {"a = '''x''", 1, 5, "without its closing '''"},
    {"a = \"\\x41\"", 1, 6, "unknown escape"},
    {"a = \"\\e\"", 1, 6, "unknown escape"},
    {"a = \"\\ \"", 1, 6, "unknown escape"},
    {"a = \"\\", 1, 6, "unknown escape"},
    {"a = \"\\u12\"", 1, 6, "4 hexadecimal"},
    {"a = \"\\U0012345\"", 1, 6, "8 hexadecimal"},
    {"a = \"\\uD800\"", 1, 6, "not a Unicode scalar"},
    {"a = \"\\U00110000\"", 1, 6, "not a Unicode scalar"},
    {"a = \"\"\"x\\ y\"\"\"", 1, 9, "unknown escape"},
    {"a = \"\"\"x\"\"\"\"\"\"", 1, 14, "expected the end of the line"},
    {"a = '''x''''''", 1, 14, "expected the end of the line"},
    {"a = \"x\"y", 1, 8, "expected the end of the line"},
    {"a = \"x\" \"y\"", 1, 9, "expected the end of the line"},
    {"a = 'it's'", 1, 9, "expected the end of the line"},
    /* arrays */
    {"a = [1", 1, 5, "without its closing ]"},
    {"a = [1 2]", 1, 8, "expected , or ]"},
    {"a = [,1]", 1, 6, "expected a value"},
    {"a = [1,,2]", 1, 8, "expected a value"},
    {"a = [1]]", 1, 8, "expected the end of the line"},
    {"a = [\n1,\nb = 2\n]", 3, 1, "not a value"},
    {"a = ]", 1, 5, "expected a value"},
    /* inline tables */
    {"a = {b = 1", 1, 11, "expected , or }"},
    {"a = {b = 1,}", 1, 12, "no comma behind the last"},
    {"a = {,b = 1}", 1, 6, "expected a key"},
    {"a = {b = 1 c = 2}", 1, 12, "expected , or }"},
    {"a = {b = 1,\nc = 2}", 1, 12, "key is missing"},
    {"a = {\nb = 1}", 1, 6, "key is missing"},
    {"a = {b = 1\n}", 1, 11, "ends in the line where it began"},
    {"a = {b = 1 # x\n}", 1, 12, "ends in the line where it began"},
    {"a = {b = 1, b = 2}", 1, 13, "defined already"},
    {"a = {b.c = 1, b = 2}", 1, 15, "defined already"},
    {"a = {b = {x = 1}, b.y = 2}", 1, 19, "defined already"},
    {"a = {}\na.b = 1", 2, 1, "defined already"},
    {"a = {b = 1}\n[a]", 2, 2, "defined already"},
    {"a = {b = {}}\n[a.b.c]", 2, 2, "defined already"},
    {"a = {b}", 1, 7, "expected ="},
    {"a = {b.c = 1}\na.b.d = 2", 2, 1, "defined already"},
    {"[t]\na = {}\n[t.a.b]", 3, 4, "defined already"},
    /* tables */
    {"[a", 1, 3, "expected ]"},
    {"[]", 1, 2, "expected a key"},
    {"[ ]", 1, 3, "expected a key"},
    {"[a]]", 1, 4, "expected the end of the line"},
    {"[a] b = 1", 1, 5, "expected the end of the line"},
    {"[a.]", 1, 4, "expected a key"},
    {"[a..b]", 1, 4, "expected a key"},
    {"[a b]", 1, 4, "expected ]"},
    {"[a\n]", 1, 3, "expected ]"},
    {"[a=1]", 1, 3, "expected ]"},
    {"[a]\n[a]", 2, 2, "defined already, in line 1"},
    {"[a]\nb = 1\n[a.b]", 3, 4, "defined already"},
    {"[a.b]\n[a]\n[a]", 3, 2, "defined already"},
    {"a = 1\n[a]", 2, 2, "defined already"},
    {"a = 1\n[a.b]", 2, 2, "defined already"},
    {"a.b = 1\n[a]", 2, 2, "defined already"},
    {"[a]\nb.c = 1\n[a.b]", 3, 4, "defined already"},
    {"[a]\nb.c.d = 1\n[a.b.c]", 3, 6, "defined already"},
    {"[a.b.c]\nz = 9\n[a]\nb.c.t = 1", 4, 3, "defined already"},
    {"[a.b]\n[a]\nb.c = 1", 3, 1, "defined already"},
    {"[a]\n[b]\n[a]\nx = 1", 3, 2, "defined already"},
    /* arrays of tables */
    {"[[a]", 1, 4, "expected ]]"},
    {"[[a] ]", 1, 4, "expected ]]"},
    {"[ [a]]", 1, 3, "expected a key"},
    {"[[]]", 1, 3, "expected a key"},
    {"[[a.]]", 1, 5, "expected a key"},
    {"a = []\n[[a]]", 2, 3, "defined already"},
    {"a = [{}]\n[[a]]", 2, 3, "defined already"},
    {"a = [{}]\n[a.b]", 2, 2, "defined already"},
    {"[a]\n[[a]]", 2, 3, "defined already"},
    {"[[a]]\n[a]", 2, 2, "defined already"},
    {"[a.b]\n[[a]]", 2, 3, "defined already"},
    {"[[a.b]]\n[[a]]", 2, 3, "defined already"},
    {"a = 1\n[[a]]", 2, 3, "defined already"},
    {"[[a.b]]\n[a]\nb.y = 2", 3, 1, "defined already"},
    {"[[a]]\n[a.b]\n[[a.b]]", 3, 5, "defined already"},
    {"[[a]]\n[[a.b]]\n[a.b]", 3, 4, "defined already"},
};

struct first_fault {
  unsigned line, column, count;
  char message[256];
};

static void note(void *arg, unsigned line, unsigned column, const char *message) {
  struct first_fault *f = arg;
  if (f->count++ == 0) {
    f->line = line;
    f->column = column;
    snprintf(f->message, sizeof f->message, "%s", message);
  }
}

static void test_valid(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof valids / sizeof *valids; i++) {
    struct first_fault f = {0};
    struct buf out = BUF_INIT(65536);
    struct toml_doc *doc = toml_parse(valids[i].text, strlen(valids[i].text), note, &f);
    assert_non_null(doc);
    if (f.count)
      fail_msg("%s: %u:%u: %s", valids[i].text, f.line, f.column, f.message);
    assert_int_equal(toml_print_value(toml_root(doc), &out), 0);
    if (strcmp(buf_str(&out), valids[i].tree) != 0)
      fail_msg("%s: gives %s", valids[i].text, buf_str(&out));
    buf_free(&out);
    toml_free(doc);
  }
}

static void test_invalid(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof invalids / sizeof *invalids; i++) {
    struct first_fault f = {0};
    const struct invalid *c = &invalids[i];
    size_t len = strlen(c->text);
    char *exact = malloc(len ? len : 1); /* without the NUL, so that a sanitizer sees what reads past the end */
    assert_non_null(exact);
    memcpy(exact, c->text, len);
    struct toml_doc *doc = toml_parse(exact, len, note, &f);
    free(exact);
    assert_non_null(doc);
    if (!f.count || toml_fault_count(doc) != f.count)
      fail_msg("%s: no fault", c->text);
    if (f.line != c->line || f.column != c->column || !strstr(f.message, c->message))
      fail_msg("%s: %u:%u: %s", c->text, f.line, f.column, f.message);
    toml_free(doc);
  }
}

/* What prints must read back as the same tree, as a document as well as inline. */
static void test_print(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof valids / sizeof *valids; i++) {
    struct buf text = BUF_INIT(65536), tree = BUF_INIT(65536);
    struct toml_doc *doc = toml_parse(valids[i].text, strlen(valids[i].text), NULL, NULL);
    assert_int_equal(toml_print(toml_root(doc), &text), 0);
    toml_free(doc);
    struct first_fault f = {0};
    doc = toml_parse(buf_str(&text), text.len, note, &f);
    if (f.count)
      fail_msg("%s printed as %s: %u:%u: %s", valids[i].text, buf_str(&text), f.line, f.column, f.message);
    toml_print_value(toml_root(doc), &tree);
    struct toml_doc *again = toml_parse(valids[i].text, strlen(valids[i].text), NULL, NULL);
    struct buf sorted = BUF_INIT(65536);
    assert_int_equal(toml_root(again)->table.count, toml_root(doc)->table.count);
    if (!strchr(valids[i].tree + 1, '{')) { /* tables print behind plain keys: only flat documents keep their order */
      toml_print_value(toml_root(again), &sorted);
      assert_string_equal(buf_str(&sorted), buf_str(&tree));
    }
    buf_free(&sorted);
    toml_free(again);
    toml_free(doc);
    buf_free(&text);
    buf_free(&tree);
  }
}

static void test_places(void **state) {
  (void)state;
  static const char text[] = "# é\n\"schlüssel\" = { \"ä\" = [1,\n  'x'] }\n[tab]\n  k.l\t= true\n";
  struct toml_doc *doc = toml_parse(text, strlen(text), NULL, NULL);
  struct toml_entry *e = toml_find(toml_root(doc), "schlüssel", strlen("schlüssel"));
  assert_non_null(e);
  assert_int_equal(e->line, 2);
  assert_int_equal(e->column, 1);
  assert_int_equal(e->value->column, 15);
  struct toml_entry *inner = toml_find(e->value, "ä", 2);
  assert_int_equal(inner->column, 17);
  assert_int_equal(inner->value->column, 23);
  assert_int_equal(inner->value->array.items[1]->line, 3);
  assert_int_equal(inner->value->array.items[1]->column, 3);
  struct toml_value *k = toml_get(toml_get(toml_root(doc), "tab"), "k");
  assert_int_equal(toml_get(toml_root(doc), "tab")->line, 4);
  assert_int_equal(toml_find(k, "l", 1)->line, 5);
  assert_int_equal(toml_find(k, "l", 1)->column, 5);
  assert_int_equal(toml_get(k, "l")->column, 9);
  toml_free(doc);
}

static void collect(void *arg, unsigned line, unsigned column, const char *message) {
  struct buf *b = arg;
  (void)message;
  buf_printf(b, "%u:%u ", line, column);
}

static void test_every_fault(void **state) {
  (void)state;
  static const char text[] = "a = \nb = 1\nb = 2\n[t\nx = 1\n[u]\ny = [1,\n 2 3]\nz = 1\n[u]\nw = 01\n";
  struct buf places = BUF_INIT(1024);
  struct toml_doc *doc = toml_parse(text, strlen(text), collect, &places);
  assert_string_equal(buf_str(&places), "1:5 3:1 4:3 8:4 10:2 11:5 ");
  assert_int_equal(toml_fault_count(doc), 6);
  assert_int_equal(toml_get(toml_root(doc), "b")->integer, 1);
  assert_null(toml_get(toml_root(doc), "x")); /* it stood in a table whose header is broken */
  assert_int_equal(toml_get(toml_get(toml_root(doc), "u"), "z")->integer, 1);
  toml_free(doc);
  buf_free(&places);
}

static void test_limits(void **state) {
  (void)state;
  struct first_fault f = {0};
  struct buf text = BUF_INIT(1u << 20);
  buf_add_str(&text, "a = ");
  for (int i = 0; i < 100000; i++)
    buf_add_byte(&text, '[');
  struct toml_doc *doc = toml_parse(buf_str(&text), text.len, note, &f);
  assert_int_equal(f.count, 1);
  assert_non_null(strstr(f.message, "deeper than"));
  toml_free(doc);
  buf_reset(&text);
  for (int i = 0; i < 20000; i++)
    buf_printf(&text, "k%d = %d\n", i, i);
  f = (struct first_fault){0};
  doc = toml_parse(buf_str(&text), text.len, note, &f);
  assert_int_equal(f.count, 0);
  assert_int_equal(toml_root(doc)->table.count, 20000);
  assert_int_equal(toml_get(toml_root(doc), "k19999")->integer, 19999);
  assert_null(toml_get(toml_root(doc), "k20000"));
  toml_free(doc);
  buf_reset(&text);
  for (int i = 0; i < 1000; i++)
    buf_add_str(&text, "= 1\n=\nk = ?\n");
  f = (struct first_fault){0};
  doc = toml_parse(buf_str(&text), text.len, note, &f);
  assert_true(f.count <= TOML_FAULTS_MAX);
  toml_free(doc);
  buf_free(&text);
}

#define BLOCKS 16 /* 65,536 keys */
#define BLOCK 8

static uint32_t fnv(uint32_t h, const char *text, size_t len) {
  for (size_t i = 0; i < len; i++)
    h = (h ^ (uint8_t)text[i]) * 16777619u;
  return h;
}

/* Two blocks after which FNV-1a is in the same state: any hash without a secret has them. */
static uint32_t two_alike(uint32_t h, uint32_t *seed, char pair[2][BLOCK]) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  static struct {
    uint32_t state;
    char text[BLOCK];
  } seen[1 << 20];
  memset(seen, 0, sizeof seen);
  for (;;) {
    char text[BLOCK];
    for (unsigned i = 0; i < BLOCK; i++) {
      *seed = *seed * 1664525u + 1013904223u;
      text[i] = letters[(*seed >> 16) % 36];
    }
    uint32_t state = fnv(h, text, BLOCK);
    size_t at = state & ((1u << 20) - 1);
    if (seen[at].text[0] && seen[at].state == state && memcmp(seen[at].text, text, BLOCK) != 0) {
      memcpy(pair[0], text, BLOCK);
      memcpy(pair[1], seen[at].text, BLOCK);
      return state;
    }
    seen[at].state = state;
    memcpy(seen[at].text, text, BLOCK);
  }
}

static double seconds_for(char pairs[BLOCKS][2][BLOCK], bool chosen) {
  struct toml_doc *doc = toml_doc_new();
  struct toml_value *table = toml_new(doc, TOML_TABLE);
  clock_t began = clock();
  for (uint32_t n = 0; n < 1u << BLOCKS; n++) {
    char key[BLOCKS * BLOCK + 1];
    for (unsigned b = 0; b < BLOCKS; b++)
      memcpy(key + b * BLOCK, pairs[b][n >> b & 1], BLOCK);
    if (!chosen)
      snprintf(key, sizeof key, "%0128u", n);
    assert_non_null(toml_table_add(doc, table, key, sizeof key - 1, toml_new(doc, TOML_BOOL)));
  }
  double took = (double)(clock() - began) / CLOCKS_PER_SEC;
  toml_free(doc);
  return took;
}

/* A table in a body may have as many keys as fit, of its sender's choice. */
static void test_keys_chosen_to_collide(void **state) {
  (void)state;
  char pairs[BLOCKS][2][BLOCK];
  uint32_t h = 2166136261u, seed = 1;
  for (unsigned b = 0; b < BLOCKS; b++)
    h = two_alike(h, &seed, pairs[b]);
  double chosen = seconds_for(pairs, true), any = seconds_for(pairs, false);
  if (chosen > 0.3 + 5 * any)
    fail_msg("%.2f s, and %.2f s with other keys", chosen, any);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_valid),
      cmocka_unit_test(test_invalid),
      cmocka_unit_test(test_print),
      cmocka_unit_test(test_places),
      cmocka_unit_test(test_every_fault),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_keys_chosen_to_collide),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
