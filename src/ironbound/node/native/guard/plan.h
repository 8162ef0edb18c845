/* The plan: which limits and which filter to set, and what to start afterwards. Strict text in one fixed order.
 *
 * Rule 1: whatever is not exactly the form below is a refusal: another order, a line too many, a number with a
 *         leading zero, an upper-case digit, a zero byte, a second limit or variable of one name.
 * Rule 2: the pointers lead into the plan's own buffer, whose line ends have become NULs; nothing is copied.
 *
 *     ironbound-plan/v1
 *     landlock required | landlock absent
 *     rlimit NUMBER VALUE       any number of lines
 *     filter HEX                struct sock_filter, 8 bytes each
 *     env KEY=VALUE             any number of lines
 *     cwd /PATH
 *     arg /PROGRAM              one or more
 */
#ifndef PLAN_H
#define PLAN_H

enum { MAX_PLAN = 256 * 1024, MAX_INSTRUCTIONS = 4096, MAX_VARIABLES = 128, MAX_ARGUMENTS = 256, RLIMITS = 16 };

typedef struct {
    boolean landlock;
    boolean limited[RLIMITS];
    u64 limits[RLIMITS];
    u16 instructions;
    u8 *filter; /* decoded in place */
    char *variables[MAX_VARIABLES + 1], *arguments[MAX_ARGUMENTS + 1];
    char *folder;
} plan;

/* 0 to 2^63 - 1 in its only spelling; moves past it. */
static boolean plan_number(char **at, u64 *number) {
    char *digits = *at;
    u64 value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        if (*at - digits > 18) return NO;
        value = value * 10 + (u64)(**at - '0');
    }
    *number = value;
    return *at > digits && (*digits != '0' || *at - digits == 1) && value >> 63 == 0;
}

static int plan_digit(char one) {
    return one >= '0' && one <= '9' ? one - '0' : one >= 'a' && one <= 'f' ? one - 'a' + 10 : -1;
}

/* The rest of the line if it begins like this, else nothing. */
static char *plan_after(char *line, const char *start) {
    while (*start)
        if (*line++ != *start++) return 0;
    return line;
}

static boolean plan_limit(plan *into, char *rest) {
    u64 number, value;
    if (!plan_number(&rest, &number) || *rest++ != ' ' || !plan_number(&rest, &value) || *rest) return NO;
    if (number >= RLIMITS || into->limited[number]) return NO;
    into->limited[number] = YES;
    into->limits[number] = value;
    return YES;
}

static boolean plan_filter(plan *into, char *rest) {
    word size = length(rest);
    if (size == 0 || size % 16 || size / 16 > MAX_INSTRUCTIONS) return NO;
    into->filter = (u8 *)rest;
    into->instructions = (u16)(size / 16);
    for (word i = 0; i < size / 2; i++) {
        int high = plan_digit(rest[2 * i]), low = plan_digit(rest[2 * i + 1]);
        if (high < 0 || low < 0) return NO;
        into->filter[i] = (u8)(high << 4 | low);
    }
    return YES;
}

static boolean plan_variable(plan *into, word count, char *rest) {
    word name = 0;
    while ((rest[name] >= 'A' && rest[name] <= 'Z') || (rest[name] >= 'a' && rest[name] <= 'z') ||
           rest[name] == '_' || (name && rest[name] >= '0' && rest[name] <= '9'))
        name++;
    if (!name || rest[name] != '=') return NO;
    for (word i = 0; i < count; i++) {
        word same_until = 0;
        while (same_until <= name && into->variables[i][same_until] == rest[same_until]) same_until++;
        if (same_until > name) return NO;
    }
    into->variables[count] = rest;
    return YES;
}

/* Reads `size` bytes at `data`, which has room for one more. Returns 0, or what was expected instead. */
static inline const char *plan_parse(plan *into, char *data, word size) {
    char *line, *rest, *end = data + size;
    word count;
    if (size < 1 || data[size - 1] != '\n') return "a last line with its end";
    for (word i = 0; i < size; i++) {
        if (data[i] == 0) return "no zero byte";
        if (data[i] == '\n') data[i] = 0;
    }
    *end = 0; /* an empty line stands for the end: it begins like none */
#define NEXT (line = line < end ? line + length(line) + 1 : end)
    line = data;
    if (!same(line, "ironbound-plan/v1")) return "ironbound-plan/v1";
    NEXT;
    into->landlock = same(line, "landlock required");
    if (!into->landlock && !same(line, "landlock absent")) return "landlock required or landlock absent";
    for (NEXT; (rest = plan_after(line, "rlimit ")); NEXT)
        if (!plan_limit(into, rest)) return "rlimit, a number below 16 that stood in no other line, and a value";
    if (!(rest = plan_after(line, "filter "))) return "filter";
    char *after_filter = line + length(line) + 1; /* decoding overwrites the line */
    if (!plan_filter(into, rest)) return "filter and 1 to 4096 instructions in lower-case hexadecimal";
    line = after_filter;
    for (count = 0; (rest = plan_after(line, "env ")); count++, NEXT)
        if (count >= MAX_VARIABLES || !plan_variable(into, count, rest)) return "env, a new name and a value";
    if (!(into->folder = plan_after(line, "cwd ")) || *into->folder != '/') return "cwd and an absolute path";
    NEXT;
    for (count = 0; (rest = plan_after(line, "arg ")); count++, NEXT) {
        if (count >= MAX_ARGUMENTS) return "at most 256 arguments";
        into->arguments[count] = rest;
    }
#undef NEXT
    if (!count || *into->arguments[0] != '/') return "arg and the program's absolute path";
    return line == end ? 0 : "nothing behind the arguments";
}

#endif
