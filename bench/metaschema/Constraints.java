import gov.nist.secauto.metaschema.core.configuration.DefaultConfiguration;
import gov.nist.secauto.oscal.lib.OscalBindingContext;
import java.nio.file.Path;

/** Prints a line for each file: its name, how many of OSCAL's constraints it breaks, and the first of them. */
public class Constraints {
  public static void main(String[] files) throws Exception {
    var context = OscalBindingContext.newInstance();
    for (String file : files) {
      var findings = context.validateWithConstraints(Path.of(file).toUri(), new DefaultConfiguration<>()).getFindings();
      String first = findings.isEmpty() ? "" : findings.get(0).getPath() + ": " + findings.get(0).getMessage();
      System.out.println(file + "\t" + findings.size() + "\t" + first.replaceAll("\\s+", " "));
    }
  }
}
