//! The public examples as a table, the errors, and what random input may not do.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pattern(source: Value) -> Pattern {
    Pattern::parse(&source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// A pattern, events that it matches, events that it does not.
type Case = (Value, Vec<Value>, Vec<Value>);

#[test]
fn matches_as_the_public_documentation_says() {
    let detail = |value: Value| json!({ "detail": value });
    let cases: Vec<Case> = vec![
        // Equals, Or within one field, And across fields, Empty, Null.
        (
            json!({"source": ["aws.ec2"], "detail": {"state": ["terminated", "stopped"]}}),
            vec![json!({"source": "aws.ec2", "detail": {"state": "stopped"}, "extra": 1})],
            vec![
                json!({"source": "aws.ec2", "detail": {"state": "running"}}),
                json!({"source": "aws.s3", "detail": {"state": "stopped"}}),
                json!({"source": "aws.ec2"}),
            ],
        ),
        (
            json!({"detail": {"eventVersion": [""], "responseElements": [null]}}),
            vec![detail(json!({"eventVersion": "", "responseElements": null}))],
            vec![
                detail(json!({"eventVersion": "", "responseElements": ""})),
                detail(json!({"eventVersion": null, "responseElements": null})),
                detail(json!({"eventVersion": ""})),
                detail(json!({"eventVersion": "", "responseElements": "null"})),
            ],
        ),
        (
            json!({"detail": {"ok": [true], "n": [100]}}),
            vec![detail(json!({"ok": true, "n": 100})), detail(json!({"ok": true, "n": 1.0e2}))],
            vec![
                detail(json!({"ok": "true", "n": 100})),
                detail(json!({"ok": false, "n": 100})),
                detail(json!({"ok": true, "n": "100"})),
            ],
        ),
        (
            json!({"n": [9_007_199_254_740_993_u64]}),
            vec![json!({"n": 9_007_199_254_740_993_u64})],
            vec![json!({"n": 9_007_199_254_740_992_u64})],
        ),
        // An array in the event matches where it meets the pattern's.
        (
            json!({"resources": ["arn:a", "arn:b"]}),
            vec![json!({"resources": ["arn:x", "arn:b"]}), json!({"resources": [["arn:a"]]})],
            vec![json!({"resources": ["arn:x"]}), json!({"resources": []})],
        ),
        // Prefix and suffix, with and without case.
        (
            json!({"time": [{"prefix": "2017-10-02"}]}),
            vec![json!({"time": "2017-10-02T18:43:48Z"})],
            vec![json!({"time": "2017-10-03T18:43:48Z"}), json!({"time": 2017}), json!({})],
        ),
        (
            json!({"detail": {"service": [{"prefix": {"equals-ignore-case": "EventB"}}]}}),
            vec![detail(json!({"service": "eventbridge"})), detail(json!({"service": "EVENTB"}))],
            vec![detail(json!({"service": "event"}))],
        ),
        (
            json!({"FileName": [{"suffix": ".png"}]}),
            vec![json!({"FileName": "a.png"})],
            vec![json!({"FileName": "a.PNG"}), json!({"FileName": "png"})],
        ),
        (
            json!({"FileName": [{"suffix": {"equals-ignore-case": ".png"}}]}),
            vec![json!({"FileName": "a.PnG"})],
            vec![json!({"FileName": "a.pngx"})],
        ),
        (
            json!({"detail-type": [{"equals-ignore-case": "ec2 Instance"}]}),
            vec![json!({"detail-type": "EC2 INSTANCE"})],
            vec![json!({"detail-type": "EC2 INSTANCES"}), json!({"detail-type": "EC2"})],
        ),
        // Anything-but: absent fields never match it, other types always do.
        (
            json!({"detail": {"state": [{"anything-but": "initializing"}]}}),
            vec![
                detail(json!({"state": "running"})),
                detail(json!({"state": 5})),
                detail(json!({"state": null})),
                detail(json!({"state": ["initializing", "running"]})),
            ],
            vec![detail(json!({"state": "initializing"})), detail(json!({}))],
        ),
        (
            json!({"detail": {"x-limit": [{"anything-but": [100, 200, 300]}]}}),
            vec![detail(json!({"x-limit": 301}))],
            vec![detail(json!({"x-limit": 200.0}))],
        ),
        (
            json!({"detail": {"state": [{"anything-but": ["stopped", "overloaded"]}]}}),
            vec![detail(json!({"state": "running"}))],
            vec![detail(json!({"state": "overloaded"}))],
        ),
        (
            json!({"detail": {"state": [{"anything-but": {"equals-ignore-case": ["Stopped", "over"]}}]}}),
            vec![detail(json!({"state": "running"}))],
            vec![detail(json!({"state": "STOPPED"})), detail(json!({"state": "OVER"}))],
        ),
        (
            json!({"detail": {"state": [{"anything-but": {"prefix": "init"}}]}}),
            vec![detail(json!({"state": "running"}))],
            vec![detail(json!({"state": "initializing"}))],
        ),
        (
            json!({"FileName": [{"anything-but": {"suffix": [".txt", ".rtf"]}}]}),
            vec![json!({"FileName": "a.png"})],
            vec![json!({"FileName": "a.txt"}), json!({"FileName": "a.rtf"})],
        ),
        (
            json!({"FilePath": [{"anything-but": {"wildcard": ["*/lib/*", "*/bin/*"]}}]}),
            vec![json!({"FilePath": "/usr/share/a"})],
            vec![json!({"FilePath": "/usr/lib/a"}), json!({"FilePath": "/usr/bin/a"})],
        ),
        // Numeric.
        (
            json!({"detail": {"c-count": [{"numeric": [">", 0, "<=", 5]}], "d-count": [{"numeric": ["<", 10]}], "x-limit": [{"numeric": ["=", 3.018e2]}]}}),
            vec![detail(json!({"c-count": 5, "d-count": 9.99, "x-limit": 301.8}))],
            vec![
                detail(json!({"c-count": 0, "d-count": 9, "x-limit": 301.8})),
                detail(json!({"c-count": 5.1, "d-count": 9, "x-limit": 301.8})),
                detail(json!({"c-count": 5, "d-count": 10, "x-limit": 301.8})),
                detail(json!({"c-count": 5, "d-count": 9, "x-limit": 301})),
                detail(json!({"c-count": "5", "d-count": 9, "x-limit": 301.8})),
            ],
        ),
        (
            json!({"n": [{"numeric": [">=", 5]}]}),
            vec![json!({"n": 5}), json!({"n": 1.0e300})],
            vec![json!({"n": 4.999_999})],
        ),
        // Addresses.
        (
            json!({"ip": [{"cidr": "10.0.0.0/24"}]}),
            vec![json!({"ip": "10.0.0.255"})],
            vec![json!({"ip": "10.0.1.0"}), json!({"ip": "::1"}), json!({"ip": "ten"})],
        ),
        (
            json!({"ip": [{"cidr": "2001:db8::/32"}]}),
            vec![json!({"ip": "2001:db8:ffff::1"})],
            vec![json!({"ip": "2001:db9::1"}), json!({"ip": "10.0.0.1"})],
        ),
        // Exists, leaves only.
        (
            json!({"detail": {"state": [{"exists": true}]}}),
            vec![detail(json!({"state": null})), detail(json!({"state": ["x"]}))],
            vec![detail(json!({"state": {"a": 1}})), detail(json!({"state": []})), json!({})],
        ),
        (
            json!({"detail": {"c-count": [{"exists": false}]}}),
            vec![
                detail(json!({"state": "x"})),
                detail(json!({"c-count": {"c1": 100}})),
                json!({"source": "x"}),
            ],
            vec![detail(json!({"c-count": 5})), detail(json!({"c-count": null}))],
        ),
        (
            json!({"a": [{"exists": false}, "x"]}),
            vec![json!({}), json!({"a": "x"})],
            vec![json!({"a": "y"})],
        ),
        // Wildcards.
        (
            json!({"EventBusArn": [{"wildcard": "arn:aws:events:us-east-1:*:event-bus/*"}]}),
            vec![json!({"EventBusArn": "arn:aws:events:us-east-1:123:event-bus/b"})],
            vec![json!({"EventBusArn": "arn:aws:events:us-west-2:123:event-bus/b"})],
        ),
        (
            json!({"FileName": [{"wildcard": "dir/*.png"}]}),
            vec![json!({"FileName": "dir/a/b.png"}), json!({"FileName": "dir/.png"})],
            vec![json!({"FileName": "dir/b.png "}), json!({"FileName": "dir.png"})],
        ),
        (
            json!({"x": [{"wildcard": "a\\*b*\\\\"}]}),
            vec![json!({"x": "a*b\\"}), json!({"x": "a*bcd\\"})],
            vec![json!({"x": "axb\\"}), json!({"x": "a*b"})],
        ),
        // Overlapping pieces must not share text.
        (
            json!({"x": [{"wildcard": "aba*aba"}]}),
            vec![json!({"x": "abaaba"})],
            vec![json!({"x": "aba"}), json!({"x": "ababa"})],
        ),
        // $or: plain, beside other fields, nested, and below a field.
        (
            json!({"$or": [{"Location": ["New York"]}, {"Day": ["Monday"]}]}),
            vec![json!({"Location": "New York"}), json!({"Day": "Monday"})],
            vec![json!({"Location": "Paris", "Day": "Tuesday"}), json!({})],
        ),
        (
            json!({"source": ["aws.cloudwatch"], "detail": {"$or": [
                {"metricName": ["CPU"]},
                {"namespace": ["EC2", "ES"], "$or": [{"id": [1]}, {"space": [2]}]}
            ]}}),
            vec![
                json!({"source": "aws.cloudwatch", "detail": {"metricName": "CPU"}}),
                json!({"source": "aws.cloudwatch", "detail": {"namespace": "ES", "space": 2}}),
            ],
            vec![
                json!({"source": "aws.cloudwatch", "detail": {"namespace": "ES"}}),
                json!({"source": "aws.ec2", "detail": {"metricName": "CPU"}}),
            ],
        ),
        // Fields below an array must hold for one element.
        (
            json!({"employees": {"firstName": ["Anna"], "lastName": ["Smith"]}}),
            vec![
                json!({"employees": [{"firstName": "A"}, {"firstName": "Anna", "lastName": "Smith"}]}),
            ],
            vec![
                json!({"employees": [{"firstName": "Anna", "lastName": "J"}, {"firstName": "B", "lastName": "Smith"}]}),
            ],
        ),
        (
            json!({"employees": {"fired": [{"exists": false}]}}),
            vec![json!({"employees": [{"a": 1}, {"b": 2}]}), json!({"employees": []})],
            vec![json!({"employees": [{"a": 1}, {"fired": true}]})],
        ),
        // The rule that archweld itself lives by.
        (
            json!({"source": ["aws.codebuild"], "detail-type": ["CodeBuild Build State Change"],
                "detail": {"project-name": [{"prefix": "img-"}], "build-status": [{"anything-but": "IN_PROGRESS"}]}}),
            vec![json!({"source": "aws.codebuild", "detail-type": "CodeBuild Build State Change",
                "detail": {"project-name": "img-amd64", "build-status": "FAULT"}})],
            vec![json!({"source": "aws.codebuild", "detail-type": "CodeBuild Build State Change",
                "detail": {"project-name": "img-amd64", "build-status": "IN_PROGRESS"}})],
        ),
    ];
    for (source, matching, others) in cases {
        let pattern = pattern(source.clone());
        for event in matching {
            assert!(pattern.matches(&event), "{source} should match {event}");
        }
        for event in others {
            assert!(!pattern.matches(&event), "{source} should not match {event}");
        }
    }
}

#[test]
fn names_the_path_of_what_is_wrong() {
    let cases = [
        (json!([]), "$", "an object"),
        (json!({}), "$", "at least one field"),
        (json!({"source": "aws.ec2"}), "$.source", "an object or an array"),
        (json!({"source": []}), "$.source", "at least one value"),
        (json!({"detail": {}}), "$.detail", "at least one field"),
        (json!({"a": [["x"]]}), "$.a[0]", "a match expression"),
        (json!({"a": ["x", {"prefix": 5}]}), "$.a[1].prefix", "a string"),
        (
            json!({"a": [{"prefix": {"wildcard": "x"}}]}),
            "$.a[0].prefix.wildcard",
            "equals-ignore-case",
        ),
        (json!({"a": [{"prefix": "x", "suffix": "y"}]}), "$.a[0]", "exactly one key"),
        (json!({"a": [{"regex": "x"}]}), "$.a[0].regex", "expected one of anything-but"),
        (json!({"a": [{"exists": "true"}]}), "$.a[0].exists", "true or false"),
        (json!({"a": [{"cidr": "10.0.0.0"}]}), "$.a[0].cidr", "address block"),
        (json!({"a": [{"cidr": "10.0.0.0/33"}]}), "$.a[0].cidr", "address block"),
        (json!({"a": [{"anything-but": ["x", 1]}]}), "$.a[0].anything-but", "only strings or only"),
        (json!({"a": [{"anything-but": []}]}), "$.a[0].anything-but", "at least one"),
        (json!({"a": [{"anything-but": true}]}), "$.a[0].anything-but", "a string, a number"),
        (
            json!({"a": [{"anything-but": {"prefix": ""}}]}),
            "$.a[0].anything-but.prefix",
            "not empty",
        ),
        (
            json!({"a": [{"anything-but": {"cidr": "x"}}]}),
            "$.a[0].anything-but.cidr",
            "one of prefix",
        ),
        (json!({"a": [{"numeric": [">"]}]}), "$.a[0].numeric", "[operator, number]"),
        (json!({"a": [{"numeric": ["<", 5, ">", 1]}]}), "$.a[0].numeric", "below the upper"),
        (json!({"a": [{"numeric": ["=", 1, "<", 5]}]}), "$.a[0].numeric", "[operator, number]"),
        (json!({"a": [{"numeric": ["<", 6.0e9]}]}), "$.a[0].numeric", "-5.0e9"),
        (json!({"a": [{"wildcard": "a**b"}]}), "$.a[0].wildcard", "two wildcards"),
        (json!({"a": [{"wildcard": "a\\b"}]}), "$.a[0].wildcard", "after a backslash"),
        (json!({"$or": [{"a": [1]}]}), "$.$or", "at least two"),
        (json!({"$or": [{"a": [1]}, 5]}), "$.$or[1]", "an object"),
        (json!({"$or": [{"a": [1]}, {"prefix": ["x"]}]}), "$.$or[1].prefix", "reserved"),
        (json!({"a": [1], "$or": [{"a": [2]}, {"b": [3]}]}), "$.$or[0].a", "once"),
    ];
    for (source, path, problem) in cases {
        let error = Pattern::parse(&source).expect_err(&source.to_string());
        assert_eq!(error.path, path, "{source}");
        assert!(error.problem.contains(problem), "{source}: {error}");
    }
}

#[test]
fn refuses_a_pattern_over_its_size() {
    let padding = PATTERN_BYTES_MAX - json!({"a": [""]}).to_string().len();
    let fits = json!({"a": ["x".repeat(padding)]});
    let over = json!({"a": ["x".repeat(padding + 1)]});
    assert!(Pattern::parse(&fits).is_ok());
    assert!(Pattern::parse(&over).expect_err("too large").problem.contains("4097 bytes"));
}

#[test]
fn refuses_more_than_a_thousand_or_combinations() {
    let or = |name: &str, branches: usize| -> Value {
        (0..branches).map(|index| json!({format!("{name}{index}"): [1]})).collect()
    };
    let thousand =
        json!({"a": {"$or": or("x", 10)}, "b": {"$or": or("x", 10)}, "c": {"$or": or("x", 10)}});
    let more =
        json!({"a": {"$or": or("x", 10)}, "b": {"$or": or("x", 10)}, "c": {"$or": or("x", 11)}});
    assert!(Pattern::parse(&thousand).is_ok());
    assert!(Pattern::parse(&more).expect_err("too many").problem.contains("1100 combinations"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("a".to_owned()),
        Just("prefix".to_owned()),
        Just("suffix".to_owned()),
        Just("anything-but".to_owned()),
        Just("numeric".to_owned()),
        Just("exists".to_owned()),
        Just("cidr".to_owned()),
        Just("wildcard".to_owned()),
        Just("equals-ignore-case".to_owned()),
        Just("$or".to_owned()),
        Just("10.0.0.0/8".to_owned()),
        Just("<=".to_owned()),
        ".{0,6}",
        "[a*\\\\]{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn never_panics(source in any_json(), event in any_json()) {
        if let Ok(pattern) = Pattern::parse(&source) {
            pattern.matches(&event);
        }
    }

    #[test]
    fn a_pattern_of_an_events_own_values_matches_it(values in prop::collection::btree_map("[a-z]{1,4}", "[a-zA-Z]{0,5}", 1..6)) {
        let source: Value = values.iter().map(|(name, value)| (name.clone(), json!([value]))).collect::<Map<_, _>>().into();
        prop_assert!(pattern(source).matches(&json!(values)));
    }

    #[test]
    fn anything_but_is_the_opposite_of_what_it_holds(value in ".{0,8}", operand in "[a-c]{1,3}", operator in prop_oneof![Just("prefix"), Just("suffix"), Just("equals-ignore-case"), Just("wildcard")]) {
        let event = json!({"a": value});
        let direct = pattern(json!({"a": [{operator: operand.clone()}]}));
        let opposite = pattern(json!({"a": [{"anything-but": {operator: operand}}]}));
        prop_assert_ne!(direct.matches(&event), opposite.matches(&event));
    }
}
