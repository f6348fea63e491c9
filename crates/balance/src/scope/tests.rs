use tower_sd_core::Instance;

use super::*;

/// Two attempts in flight: what one of them has not sent the other may have.
#[test]
fn attempt_that_was_not_sent_clears_no_other() {
    let scope = RequestScope::new();
    let [a, b] = ["a", "b"].map(|host| Instance::new(host, 1).id().clone());
    scope.sent(1, &a);
    scope.sent(2, &b);
    scope.not_sent(2);
    assert!(scope.was_sent_since(0) && !scope.was_sent_since(1));
    scope.not_sent(1);
    assert!(!scope.was_sent_since(0));
    assert_eq!(scope.tried(), [a.clone(), b.clone()]);
    assert_eq!(scope.last_since(0), Some(b.clone()));
    scope.result_of(0);
    assert_eq!((scope.last_since(0), scope.last_since(1)), (Some(a), None));
    scope.sent(3, &b);
    assert_eq!(scope.last_since(2), Some(b));
}
