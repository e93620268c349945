//! What the programs are given to work on.

use std::fmt::Write;

/// SQL that inserts 200,000 rows, indexes and queries them.
pub(super) fn sql() -> String {
    const ROWS: u32 = 200_000;
    let mut sql =
        "create table t(id integer primary key, name text, part integer, price real);\nbegin;\n"
            .to_owned();
    for row in 0..ROWS {
        let (name, part, price) = (row.wrapping_mul(7919) % ROWS, row % 1000, row % 977);
        let _ = writeln!(
            sql,
            "insert into t values({row},'name {name}',{part},{price}.5);"
        ); // a String takes all
    }
    sql.push_str("commit;\ncreate index i on t(part);\n");
    sql.push_str("select part, count(*), avg(price), max(name) from t group by part order by 3;\n");
    for part in 0..1000 {
        let _ = writeln!(
            sql,
            "select name, price from t where part={part} order by name;"
        ); // as above
    }
    sql
}

/// A thousand lines of C, without any header.
pub(super) fn c() -> String {
    (0..60).map(functions).collect()
}

/// A struct and two functions: 17 lines.
fn functions(number: u32) -> String {
    let (shift, divisor) = (number % 13 + 1, number + 7);
    format!(
        "struct s{number} {{ unsigned long a, b; int n; unsigned long list[16]; }};
static unsigned long mix{number}(struct s{number} *s, unsigned long sum) {{
    for (int i = 0; i < s->n; i++) {{
        sum ^= s->list[i & 15] + (sum << {shift}) + (sum >> 3);
        if (sum % {divisor} == 1)
            s->list[(i + 1) & 15] = sum * s->a + s->b;
        else
            switch (sum & 7) {{
            case 0: s->a++; break;
            case 3: s->b -= sum; break;
            case 5: sum += s->a; break;
            }}
    }}
    return sum;
}}
unsigned long f{number}(struct s{number} *s, unsigned long x) {{
    unsigned long y = mix{number}(s, x);
    for (; y > s->a; s->n--)
        y = y / 3 + mix{number}(s, y);
    return y;
}}
"
    )
}
