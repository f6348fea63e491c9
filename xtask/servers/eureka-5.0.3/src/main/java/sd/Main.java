package sd;

import java.util.Arrays;

import org.springframework.boot.SpringApplication;

/** `server` or `client`, and Spring's own options behind it. */
public final class Main {
    private Main() {}

    public static void main(String[] args) {
        Class<?> application = switch (args.length == 0 ? "" : args[0]) {
            case "server" -> Server.class;
            case "client" -> Client.class;
            default -> throw new IllegalArgumentException("usage: eureka server|client [OPTION…]");
        };
        SpringApplication.run(application, Arrays.copyOfRange(args, 1, args.length));
    }
}
